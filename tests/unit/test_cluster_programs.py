"""Programs of the test cluster: missing ones are named, and KEDA's source is reduced to its Redis scalers."""

from pathlib import Path

import pytest

from dev.cluster.keda_source import copy_with_redis_only
from dev.cluster.programs import PROGRAMS, why_not

BUILDER = """package scaling

func build(triggerType string) (scalers.Scaler, error) {
	switch triggerType {
	case "external":
		return scalers.NewExternalScaler(config)
	// only for tests
	case "kafka":
		return scalers.NewKafkaScaler(ctx, config)
	case "redis":
		return scalers.NewRedisScaler(ctx, false, false, config)
	default:
		return nil, fmt.Errorf("no scaler found for type: %s", triggerType)
	}
}
"""


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATCH_CLUSTER_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("empty_cache")
def test_missing_programs_are_named_with_their_build_command() -> None:
    reason = why_not()

    assert all(program.name in reason for program in PROGRAMS)
    assert "make k8s-programs" in reason
    assert "\n" not in reason


def test_built_programs_are_not_named(empty_cache: Path) -> None:
    (empty_cache / "bin").mkdir()
    PROGRAMS[0].path.touch()

    reason = why_not()

    assert reason.startswith(f"no cluster: {PROGRAMS[1].name},")


def test_keda_source_keeps_only_redis_scalers(tmp_path: Path) -> None:
    module = tmp_path / "keda@v2"
    (module / "pkg/scalers/redis").mkdir(parents=True)
    (module / "pkg/scaling").mkdir()
    for name in ("scaler.go", "redis_scaler.go", "kafka_scaler.go", "redis_scaler_test.go"):
        (module / "pkg/scalers" / name).touch()
    (module / "pkg/scaling/scalers_builder.go").write_text(BUILDER)

    copy_with_redis_only(module, tmp_path / "copy")

    kept = {path.name for path in (tmp_path / "copy/pkg/scalers").glob("*.go")}
    assert kept == {"scaler.go", "redis_scaler.go", "shared.go"}
    cases = (tmp_path / "copy/pkg/scaling/scalers_builder.go").read_text()
    assert "NewRedisScaler" in cases
    assert "Kafka" not in cases
    assert "External" not in cases
    assert "default:" in cases
