"""The checker behind the import hook: beartype, with an int where a float is wanted, as PEP 484 has it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
