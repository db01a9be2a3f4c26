"""Secrets that stand in files, as containers are given them, and addresses whose password does.

The idea: a file is read when the settings are, and then an address is in full, whoever asks for it. What is given
directly stands; a file only fills in what is missing.
"""

from pathlib import Path
from urllib.parse import quote, urlsplit

from promptmill.errors import ConfigurationError


def read_secret(file: Path, setting: str) -> str:
    """The text of a file without the space around it; `setting` is what named it.

    Raises:
        ConfigurationError: the file cannot be read, or is empty.
    """
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{setting}: {file} cannot be read ({type(error).__name__})", setting=setting
        ) from error
    if not text:
        raise ConfigurationError(f"{setting}: {file} is empty", setting=setting)
    return text


def full_address(
    url: str | None, *, url_file: Path | None, password_file: Path | None, setting: str
) -> str | None:
    """The address of a server, with what its files say; None where nobody names one.

    Args:
        url: the address as it was given.
        url_file: holds the whole of it; not read where `url` is given.
        password_file: holds the password; not read where the address has one.
        setting: the variable of the address itself; those of the files begin with it.

    Raises:
        ConfigurationError: a file cannot be read or is empty, or there is no server that a password could be for.
    """
    if url is None and url_file is not None:
        url = read_secret(url_file, f"{setting}_FILE")
    if password_file is None:
        return url
    password_setting = f"{setting.removesuffix('_URL')}_PASSWORD_FILE"
    if url is None or not (parts := urlsplit(url)).hostname:
        raise ConfigurationError(
            f"{password_setting}: there is no server it is for; set {setting}, without the password",
            setting=password_setting,
        )
    if parts.password is not None:
        return url
    password = quote(read_secret(password_file, password_setting), safe="")
    name, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{name}:{password}@{host}").geturl()
