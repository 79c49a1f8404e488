"""What a stage gives, as JSON: records keep it, other stages get it, tables and pages show it."""

from typing import Any

# ``outputs``, where a stage has any, are sizes and digests by path below its folder
Result = dict[str, Any]
