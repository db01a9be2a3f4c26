"""Settings: sources, strength, errors."""

from pathlib import Path

import pytest
from kombu.transport import TRANSPORT_ALIASES

from promptmill.claude.keys import load_keys
from promptmill.errors import ConfigurationError
from promptmill.settings import BROKERS, load


def test_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load(environ={}, folder=tmp_path)
    assert settings.redis_url is None
    assert settings.effective_database_url.startswith("sqlite:///")
    assert settings.effective_database_url.endswith("/.promptmill/promptmill.db")


def test_the_strongest_source_wins_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "promptmill.toml").write_text("[limits]\nrpm = 1\nitpm = 10\notpm = 100\n")
    (tmp_path / ".env").write_text("PROMPTMILL_RPM=2\nPROMPTMILL_ITPM=20\n")
    settings = load(environ={"PROMPTMILL_RPM": "3"}, folder=tmp_path, limits__otpm=400)
    assert (settings.limits.rpm, settings.limits.itpm, settings.limits.otpm) == (3, 20, 400)
    assert settings.origins["limits.rpm"] == "environment (PROMPTMILL_RPM)"
    assert settings.origins["limits.itpm"] == ".env (PROMPTMILL_ITPM)"
    assert settings.origins["limits.otpm"] == "argument"


def test_the_simple_env_file_is_understood(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLAUDE_KEY=sk-ant-x\nRATE_LIMIT=5\nREDIS_URL=redis://localhost:6379/0\n")
    settings = load(environ={}, folder=tmp_path)
    key = settings.claude.api_key
    assert key is not None
    assert key.get_secret_value() == "sk-ant-x"
    assert settings.limits.of("any").rpm == 300
    assert settings.redis_url == "redis://localhost:6379/0"


def test_an_account_may_have_limits_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "promptmill.toml").write_text(
        "[limits]\nrpm = 1\n"
        "[limits.accounts.research]\nrpm = 2\n"
        '[limits.accounts.research.groups."claude-opus-4.x"]\nrpm = 3\n'
        '[limits.groups."claude-opus-4.x"]\nrpm = 4\n'
    )
    limits = load(environ={}, folder=tmp_path).limits
    told = [("any", None), ("any", "research"), ("claude-opus-4.x", "research"), ("claude-opus-4.x", "other")]
    assert [limits.of(group, account).rpm for group, account in told] == [1, 2, 3, 4]


def test_an_entry_for_an_account_that_no_key_has_is_found(tmp_path: Path) -> None:
    (tmp_path / "promptmill.toml").write_text(
        "[limits.accounts.research]\nrpm = 2\n[limits.accounts.reserch]\nrpm = 2\n"
    )
    limits = load(environ={}, folder=tmp_path).limits
    assert limits.not_among(["research", "product"]) == ["reserch"]


def test_a_wrong_value_is_one_line_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={"PROMPTMILL_RPM": "fast"}, folder=tmp_path)
    assert (
        str(caught.value)
        == "PROMPTMILL_RPM: input should be a valid number, unable to parse string as a number"
    )


def test_an_unknown_entry_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "promptmill.toml").write_text("[limits]\nrmp = 1\n")
    with pytest.raises(ConfigurationError, match=r"limits\.rmp"):
        load(environ={}, folder=tmp_path)


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert load(environ={"ANTHROPIC_API_KEY": ""}, folder=tmp_path).claude.api_key is None


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    settings = load(environ={"ANTHROPIC_API_KEY": "sk-ant-secret"}, folder=tmp_path)
    assert "sk-ant-secret" not in repr(settings)
    assert "sk-ant-secret" not in settings.model_dump_json()


def test_a_key_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-ant-file\n")
    claude = load(environ={"ANTHROPIC_API_KEY_FILE": str(tmp_path / "key")}, folder=tmp_path).claude
    (key,) = load_keys(claude.api_key, api_key_file=claude.api_key_file)
    assert key.secret.get_secret_value() == "sk-ant-file"


def test_sqlite_is_refused_with_a_redis_on_another_machine(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PROMPTMILL_DATABASE_URL"):
        load(environ={"REDIS_URL": "redis://other:6379/0"}, folder=tmp_path)


def test_a_group_with_an_entry_of_its_own_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "promptmill.toml").write_text(
        '[limits]\nrpm = 10\n[limits.groups."claude-opus-4.x"]\nrpm = 99\n'
    )
    limits = load(environ={}, folder=tmp_path).limits
    assert limits.of("claude-opus-4.x").rpm == 99
    assert limits.of("other").rpm == 10


def test_an_rpm_of_zero_does_not_lift_the_rate_limit(tmp_path: Path) -> None:
    limits = load(environ={"PROMPTMILL_RPM": "0", "RATE_LIMIT": "5"}, folder=tmp_path).limits
    assert limits.of("any").rpm == 300


def test_of_rpm_and_rate_limit_the_lower_one_holds(tmp_path: Path) -> None:
    limits = load(environ={"PROMPTMILL_RPM": "60", "RATE_LIMIT": "5"}, folder=tmp_path).limits
    assert limits.of("any").rpm == 60


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("nonsense", "no address of a broker; it begins with redis:// or amqp://, say"),
        ("foo://bar", "Celery knows no broker of the kind foo; redis, rediss, amqp and amqps are usual"),
    ],
)
def test_what_is_no_broker_is_refused(tmp_path: Path, url: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={"PROMPTMILL_BROKER_URL": url}, folder=tmp_path)
    assert str(caught.value) == f"PROMPTMILL_BROKER_URL: {fault}"


@pytest.mark.parametrize("url", ["rediss://h", "amqps://h//", "sqla+sqlite:///x", "amqp://a//;amqp://b//"])
def test_every_broker_of_celery_is_taken(tmp_path: Path, url: str) -> None:
    assert load(environ={"PROMPTMILL_BROKER_URL": url}, folder=tmp_path).broker_url == url


def test_the_brokers_are_those_of_celery() -> None:
    assert set(TRANSPORT_ALIASES) <= BROKERS


@pytest.mark.parametrize("variable", ["PROMPTMILL_LOG_LEVEL", "PROMPTMILL_LOG_FORMAT"])
def test_a_level_or_format_of_logs_that_there_is_not_is_refused(variable: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load(environ={variable: "loud"}, folder=tmp_path)


def test_a_level_of_logs_may_be_written_small(tmp_path: Path) -> None:
    assert load(environ={"PROMPTMILL_LOG_LEVEL": "debug"}, folder=tmp_path).log_level == "DEBUG"
