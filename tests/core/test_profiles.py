import pytest

from micro_lib.core.profiles import PROFILES, resolve, settings


def test_an_explicit_profile_wins_over_the_environment(monkeypatch):
    assert resolve() == "quick"
    monkeypatch.setenv("MICRO_PROFILE", "smoke")
    assert (resolve(), resolve(""), resolve("paper")) == ("smoke", "smoke", "paper")


def test_unknown_profiles_are_refused_with_the_choice(monkeypatch):
    with pytest.raises(ValueError, match="PROFILE is 'fast'; there are smoke, quick, study, paper"):
        resolve("fast")
    monkeypatch.setenv("MICRO_PROFILE", "slow")
    with pytest.raises(ValueError, match="MICRO_PROFILE is 'slow'"):
        resolve()


def test_unknown_experiments_are_refused():
    with pytest.raises(ValueError, match="experiment is 'grain'; there are crack_synthesis, grain_synthesis, grains, "):
        settings("grain", "smoke")


def test_paper_profile_is_the_published_schedule():
    # Trampert et al. 2021, sections 3.2.2 and 3.2.3
    paper = settings("grains", "paper")
    assert (paper["n_train"], paper["n_validation"]) == (3200, 800)
    assert tuple(stage[:3] for stage in paper["stages"]) == ((128, 20, True), (256, 10, True), (512, 5, False))
    assert paper["seeds"] == tuple(range(1, 201))


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_of_all_profiles_have_the_same_keys_and_fit_together(profile):
    chosen = settings("grains", profile)
    assert set(chosen) == set(settings("grains", "paper"))
    assert len(set(chosen["seeds"])) == len(chosen["seeds"]) >= 1
    assert all(stage.px <= chosen["image_px"] and stage.epochs >= 1 for stage in chosen["stages"])
    assert not chosen["stages"][-1].frozen


def test_settings_cannot_be_changed():
    with pytest.raises(TypeError):
        settings("grains", "smoke")["batch"] = 1


def test_profiles_grow_in_cost():
    def cost(profile):
        chosen = settings("grains", profile)
        passes = sum(stage.epochs * stage.px**2 for stage in chosen["stages"])
        return chosen["n_train"] * passes * len(chosen["seeds"])

    costs = [cost(profile) for profile in PROFILES]
    assert costs == sorted(costs) and len(set(costs)) == 4
