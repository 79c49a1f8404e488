"""How much memory torch's tensors take: tracemalloc does not see it."""

from torch.profiler import ProfilerActivity, profile


def peak(work):
    """Bytes of tensors on the CPU at most, beside those that were there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    most = now = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        now += one.nbytes()
        most = max(most, now)
    return most
