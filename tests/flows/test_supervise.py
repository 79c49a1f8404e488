from flows.supervise import Children


class Origin:
    """The process that the stages' processes are forked from, on a machine with so many GPUs."""

    def __init__(self, gpus):
        self.gpus = gpus

    def recv(self, _):
        return bytes([self.gpus])

    def close(self):
        pass


def slots(monkeypatch, gpus, cores, **given):
    monkeypatch.setattr("flows.supervise.os.cpu_count", lambda: cores)
    children = Children(**given)
    children._connection.close()
    children._connection = Origin(gpus)
    found = [children._slot()] + [children._slots.get() for _ in range(children._slots.qsize())]
    children.stop()
    return found


def test_stages_share_a_machine(monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots(monkeypatch, 0, 16) == [{"CARE_THREADS": "4"}] * 4
    assert slots(monkeypatch, 0, 2, jobs=-1) == [{"CARE_THREADS": "2"}]
    assert slots(monkeypatch, 2, 16, jobs=3) == [{"CUDA_VISIBLE_DEVICES": number} for number in "010"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert slots(monkeypatch, 2, 16) == [{"CUDA_VISIBLE_DEVICES": number} for number in "53"]
