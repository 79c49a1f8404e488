"""How much memory torch's tensors take: tracemalloc does not see it."""

from torch.profiler import ProfilerActivity, profile


def peak(work):
    """Bytes of tensors on the CPU at most, beside those that were there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    every_event = seen.profiler.kineto_results.events()
    events = [event for event in every_event if event.name() == "[memory]"]
    most = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
