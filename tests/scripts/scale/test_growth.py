"""What grows faster than the number of trials is told from what does not."""

from __future__ import annotations

import pytest

from scripts.scale.growth import compare, fit_exponent, format_table
from scripts.scale.probes import NUM_TENTHS, Probes
from scripts.scale.sizes import Size


def make_size(trials: int, exponent: float) -> Size:
    """A search of which everything takes a millisecond times the trials to a power."""
    seconds = 1e-3 * trials**exponent
    tenth = {"calls": trials / NUM_TENTHS, "seconds": seconds / NUM_TENTHS}
    names = ("optuna: ask", "mlflow: log_batch", "mlflow: set_tag", "tracking: wait at the end")
    samples = [
        {"seconds": done * seconds / trials, "trials": done, "uss_mib": 100.0 + 0.01 * done}
        for done in range(0, trials, trials // 100)
    ]
    store = {"num_entries": 2.0 * trials} | dict.fromkeys(
        ("keys_seconds", "entries_seconds", "bytes_seconds"), seconds
    )
    probes = {name: [tenth] * NUM_TENTHS for name in names}
    return Size(trials, seconds, seconds, samples, probes, {}, store)


@pytest.mark.parametrize(("exponent", "is_linear"), [(1.0, True), (1.1, True), (2.0, False)])
def test_the_exponent_is_found(exponent: float, is_linear: bool) -> None:
    sizes = [make_size(trials, exponent) for trials in (100, 1000, 5000)]
    assert fit_exponent(sizes, lambda size: size.seconds) == pytest.approx(exponent)
    by_words = {figure.words: figure for figure in compare(sizes)}
    for words in ("wall", "Optuna: propose, in all", "store: list keys"):
        assert by_words[words].is_linear is is_linear
    assert by_words["trials a second"].is_linear is None
    assert ("**no**" in format_table(sizes, list(by_words.values()))) is not is_linear


def test_what_takes_no_time_says_nothing() -> None:
    sizes = [make_size(100, 0.5), make_size(1000, 0.5)]
    assert fit_exponent(sizes, lambda size: size.seconds) is None
    assert fit_exponent(sizes[:1], lambda size: size.seconds) is None


def test_figures_of_one_size() -> None:
    size = make_size(1000, 1.0)
    by_words = {figure.words: figure.values[0] for figure in compare([size])}
    assert by_words["trials a second"] == pytest.approx(1000.0)
    assert by_words["the same in the second half"] == pytest.approx(1000.0)
    assert by_words["its growth in 100 trials, second half"] == pytest.approx(1.0)
    assert by_words["MLflow: calls a trial"] == pytest.approx(2.0)
    assert by_words["Optuna: propose, a trial of the last tenth"] == pytest.approx(1.0)


def test_probes_add_up_by_progress() -> None:
    class Work:
        def do(self, value: int) -> int:
            return 2 * value

        def end(self) -> None:
            pass

    probes = Probes(num_trials=20)
    probes.watch(Work, "do", "work")
    probes.count_ends(Work, "end")
    work = Work()
    for number in range(20):
        assert work.do(number) == 2 * number
        work.end()
    assert [one["calls"] for one in probes.to_json()["work"]] == [2] * NUM_TENTHS
    assert probes.num_ended == 20
    with pytest.raises(AttributeError):
        probes.watch(Work, "nothing_of_the_kind", "nothing")


def test_a_call_that_fails_counts() -> None:
    class Work:
        def do(self) -> None:
            raise OSError("disk full")

    probes = Probes(num_trials=1)
    probes.watch(Work, "do", "work")
    with pytest.raises(OSError, match="disk full"):
        Work().do()
    assert probes.sums["work"][0].calls == 1
