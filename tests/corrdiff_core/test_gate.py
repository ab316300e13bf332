"""The gate: what it lets through, what it stops, and how often chance alone gets past it."""

import json
import re
from datetime import timedelta

import numpy as np
import pytest

from corrdiff_core.cycle import hours_from
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.gate import Rules, decide
from corrdiff_core.metrics import Resamples
from tests.score_cases import START, VARIABLES, daily, fabricate, weather

DAYS = 60
TIMES = daily(DAYS)


def scores(factors=1.0, noise=0.0, luck=0, times=TIMES, **more):
    """CRPS of a model that is `factors` times as bad as the weather is hard, with its own luck at each time."""
    rng = np.random.default_rng([luck, 1])
    hard = weather(len(times))
    factors = dict.fromkeys(VARIABLES, factors) if isinstance(factors, float) else factors
    crps = {name: factors[name] * hard * np.exp(noise * rng.normal(size=len(times))) for name in VARIABLES}
    return fabricate(crps, times, **more)


def production(noise=0.0, luck=99, **more):
    return scores(1.0, noise, luck, model="production-11111111", digest="11" * 32, **more)


class TestVerdict:
    def test_a_better_one_is_promoted(self):
        found = decide(scores(0.9, noise=0.1), production(noise=0.1))
        assert found.promote
        assert len(found.reasons) == 1
        assert re.match(
            r"CRPS is 0\.\d+ \(0\.\d+\.\.0\.\d+\) of production's, no variable is worse by 2%", found.reasons[0]
        )
        overall = found.numbers["crps_ratio"]["overall"]
        assert 0.87 < overall[1] < overall[0] < overall[2] < 0.93

    def test_a_worse_one_is_rejected(self):
        found = decide(scores(1.1, noise=0.1), production(noise=0.1))
        assert not found.promote
        assert found.reasons[0].startswith("not better overall: mean CRPS ratio 1.")
        assert [reason.split()[0] for reason in found.reasons[1:]] == list(VARIABLES)

    def test_the_same_model_is_not_better(self):
        found = decide(production(), production())
        assert not found.promote
        assert found.reasons == ["not better overall: mean CRPS ratio 1.000 (1.000..1.000), all of it must be below 1"]

    def test_better_by_luck_is_not_better(self):
        """Half a percent better, and a day's luck of a third: the interval reaches over 1."""
        found = decide(scores(0.995, noise=0.33, luck=5), production(noise=0.33))
        assert not found.promote
        assert found.numbers["crps_ratio"]["overall"][2] > 1

    def test_one_worse_variable_stops_it(self):
        factors = {"mrr": 0.7, "t2m": 1.05, "u10m": 0.8, "v10m": 0.8}
        found = decide(scores(factors), production())
        assert not found.promote
        assert found.reasons == ["t2m may be worse: CRPS ratio 1.050 (1.050..1.050), its upper end must be below 1.02"]

    def test_worse_within_the_margin_is_allowed(self):
        factors = {"mrr": 0.7, "t2m": 1.01, "u10m": 0.8, "v10m": 0.8}
        assert decide(scores(factors), production()).promote
        assert not decide(scores(factors), production(), Rules(margin=0.005)).promote

    def test_a_variable_that_may_be_worse_stops_it(self):
        """On average as good, but so uncertain that 5 % worse is possible."""
        rng = np.random.default_rng(3)
        hard = weather(DAYS)
        crps = dict.fromkeys(VARIABLES, 0.7 * hard) | {"t2m": hard * np.exp(0.4 * rng.normal(size=DAYS) - 0.08)}
        found = decide(fabricate(crps, TIMES), production())
        assert found.numbers["crps_ratio"]["t2m"][0] < 1.02 < found.numbers["crps_ratio"]["t2m"][2]
        assert not found.promote

    @pytest.mark.parametrize(("ratio", "word"), [(0.79, "underdispersed"), (1.26, "overdispersed")])
    def test_a_better_one_that_is_not_calibrated_is_rejected(self, ratio, word):
        found = decide(scores(0.8, spread_skill={"u10m": ratio}), production())
        assert not found.promote
        assert found.reasons == [f"u10m is {word}: spread-skill {ratio}, 0.8..1.25 is asked"]

    @pytest.mark.parametrize("ratio", [0.81, 1.24])
    def test_calibrated_within_bounds_is_enough(self, ratio):
        assert decide(scores(0.8, spread_skill=dict.fromkeys(VARIABLES, ratio)), production()).promote

    def test_production_need_not_be_calibrated(self):
        assert decide(scores(0.9), production(spread_skill={"mrr": 0.3})).promote

    def test_with_nothing_in_production_calibration_is_all(self):
        found = decide(scores(5.0), None)
        assert found.promote
        assert found.reasons == ["calibrated, and nothing is in production yet"]
        assert not decide(scores(5.0, spread_skill={"mrr": 0.5}), None).promote

    def test_few_days_are_not_believed(self):
        few = {"times": daily(9)}
        found = decide(scores(0.5, **few), production(**few))
        assert found.reasons == ["the test set has 9 days, 10 are needed: evaluate on more"]
        assert decide(scores(0.5, **few), production(**few), Rules(days=9)).promote

    def test_many_hours_of_one_day_are_one_day(self):
        day = {"times": hours_from(START, 24)}
        found = decide(scores(0.5, **day), production(**day))
        assert not found.promote
        assert "1 days" in found.reasons[0]
        assert found.numbers["crps_ratio"]["overall"][1:] == [None, None]

    def test_a_variable_without_any_error_in_production_has_no_ratio(self):
        nothing = {name: weather(DAYS) for name in VARIABLES} | {"mrr": np.zeros(DAYS)}
        found = decide(scores(0.5), fabricate(nothing, TIMES, model="production-11111111"))
        assert not found.promote
        assert any("mrr may be worse" in reason for reason in found.reasons)


class TestChance:
    def test_of_two_equally_good_models_few_are_promoted(self):
        """The interval leaves 2.5 % on the side that counts; no variable is to be worse, so fewer than that pass."""
        promoted = sum(decide(scores(1.0, 0.2, seed), production(0.2, seed + 1000)).promote for seed in range(150))
        assert promoted <= 9  # P(more | 2.5 % of 150) is below 0.5 %

    def test_hours_that_are_alike_do_not_count_as_evidence(self):
        """A day's luck of 20 % shared by its 24 hours: hour by hour it often looks certain, day by day it does not."""
        times = [time for day in daily(20) for time in hours_from(day, 24)]
        hard = weather(len(times))
        hourly = Resamples.of(times, by_day=False)
        promoted = fooled = 0
        for seed in range(40):
            luck = np.repeat(np.exp(0.2 * np.random.default_rng(seed).normal(size=20) - 0.02), 24)
            candidate = fabricate({"t2m": hard * luck}, times)
            promoted += decide(candidate, fabricate({"t2m": hard}, times, model="p")).promote
            fooled += hourly.estimate(hourly.means(hard * luck) / hourly.means(hard)).high < 1
        assert promoted <= 4
        assert fooled >= 10

    def test_a_clear_improvement_gets_through(self):
        """3 % better with a day's luck of 5 %: nearly always."""
        promoted = sum(decide(scores(0.97, 0.05, seed), production(0.05, seed + 500)).promote for seed in range(20))
        assert promoted >= 18


class TestComparable:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"samples": "6b" * 32}, "samples 5a5a5a5a5a5a and 6b6b6b6b6b6b"),
            ({"members": 16}, "members 8 and 16"),
            ({"seed": 1}, "seed 0 and 1"),
            ({"times": daily(DAYS + 1)}, "times 60 from 2021-03-01T00 to 2021-04-29T00 and 61 from"),
            ({"times": [time + timedelta(hours=1) for time in TIMES]}, "times 60 from 2021-03-01T00"),
        ],
    )
    def test_other_test_sets_are_no_verdict(self, other, message):
        with pytest.raises(ConfigurationError, match=message):
            decide(scores(0.9), production(**other))

    def test_other_variables(self):
        with pytest.raises(ConfigurationError, match="a model of other variables needs a name of its own"):
            decide(fabricate({"t2m": weather(DAYS)}, TIMES), production())

    def test_steps_and_solver_are_the_models_own(self):
        assert decide(scores(0.9, num_steps=18, solver="euler"), production()).promote


class TestRecord:
    def test_it_is_plain_json_with_both_sides(self):
        found = decide(scores(0.9), production())
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
        numbers = found.numbers
        assert numbers["candidate"]["model"] == "candidate-00000000"
        assert numbers["production"]["model"] == "production-11111111"
        assert numbers["samples"] == "5a" * 32
        assert (numbers["times"], numbers["days"]) == (DAYS, DAYS)
        assert numbers["rules"] == {"margin": 0.02, "spread_skill": [0.8, 1.25], "days": 10}
        assert set(numbers["crps_ratio"]) == {"overall", *VARIABLES}
        assert numbers["spread_skill"]["t2m"][0] == pytest.approx(1, abs=1e-3)

    def test_the_same_scores_give_the_same_numbers(self):
        assert decide(scores(0.9, 0.1), production(0.1)) == decide(scores(0.9, 0.1), production(0.1))

    def test_in_words(self):
        assert str(decide(scores(1.1), production())).startswith("reject: not better overall")
        assert str(decide(scores(0.9), production())).startswith("promote: CRPS is 0.900")


@pytest.mark.parametrize("rules", [{"margin": -0.1}, {"spread_skill": (1.2, 0.8)}, {"days": 1}])
def test_bounds_that_make_no_sense(rules):
    with pytest.raises(ConfigurationError, match="low < high"):
        Rules(**rules)
