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


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("PROMPTMILL_RPM", "fast", "input should be a valid number, not 'fast'"),
        ("PROMPTMILL_RPM", "-5", "input should be greater than or equal to 0, not '-5'"),
        ("PROMPTMILL_CONCURRENCY", "1.5", "input should be a valid integer, not '1.5'"),
        ("PROMPTMILL_LOG_FORMAT", "xml", "input should be 'auto', 'console' or 'json', not 'xml'"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    tmp_path: Path, variable: str, value: str, fault: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={variable: value}, folder=tmp_path)
    assert str(caught.value) == f"{variable}: {fault}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[limits]\nrmp = 1\n", ", line 2: limits.rmp is no setting; did you mean limits.rpm?"),
        ("rpm = 1\n", ", line 1: rpm is no setting; did you mean limits.rpm?"),
        ("# all\n[limit]\nrpm = 1\n", ", line 2: limit is no setting; did you mean limits?"),
        ("[limits]\nrpm.x = 1\n", ", line 2: limits.rpm: input should be a valid number"),
        (
            '[limits.groups."claude-opus-4.x"]\nrmp = 1\n',
            ', line 2: limits.groups."claude-opus-4.x".rmp is no setting; did you mean limits.groups."claude-opus-4.x".rpm?',
        ),
        (
            "[limits]\nrpm = 1\n[limits.accounts.a]\nrpm = 'x'\n",
            ": limits.accounts.a.rpm: input should be a valid number, not 'x'",
        ),
        ("[limits]\nzzzzz = 1\n", ", line 2: limits.zzzzz is no setting"),
        ("[limits]\nrpm = 'x'\n", ", line 2: limits.rpm: input should be a valid number, not 'x'"),
        ("worker = 5\n", ", line 1: worker: this is a table, [worker]"),
    ],
)
def test_a_fault_of_the_file_is_told_by_its_line_and_entry(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "promptmill.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(environ={"PROMPTMILL_WORKER__OUTAGE_S": "1"}, folder=tmp_path)
    assert str(caught.value) == f"promptmill.toml{fault}"


@pytest.mark.parametrize(
    "text",
    [
        "redis_url = ['redis://:CANARY@h']",
        "claude = 'CANARY'",
        "claude.api_key = ['CANARY']",
        "dashboard.token = 4711",
        "webhook = 'CANARY'",
    ],
)
def test_a_fault_does_not_repeat_what_may_be_a_secret(tmp_path: Path, text: str) -> None:
    (tmp_path / "promptmill.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(environ={}, folder=tmp_path)
    assert not {"CANARY", "4711"}.intersection(str(caught.value).replace("'", " ").split())
    assert caught.value.__context__ is None


def test_a_wrong_argument_is_named_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^limits__rpm: input should be a valid number, not 'x'$"):
        load(environ={}, folder=tmp_path, limits__rpm="x")


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


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("nonsense", "an address of a Redis begins with redis:// or rediss://"),
        ("http://:word@127.0.0.1", "an address of a Redis begins with redis:// or rediss://"),
        ("redis://:word@[::1", "no address of a Redis, such as redis://127.0.0.1:6379/0"),
        ("redis://127.0.0.1:port", "no address of a Redis, such as redis://127.0.0.1:6379/0"),
    ],
)
def test_what_is_no_redis_is_refused_without_being_repeated(tmp_path: Path, url: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={"PROMPTMILL_REDIS_URL": url}, folder=tmp_path)
    assert str(caught.value) == f"PROMPTMILL_REDIS_URL: {fault}"


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
