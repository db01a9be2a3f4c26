"""What the surroundings say about calls to Claude: proxies and certificates, read here and nowhere else.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are obeyed, but never for this machine's own addresses, where a
proxy could not reach the simulator. SSL_CERT_FILE and SSL_CERT_DIR replace the bundled certificates. Nothing else
(no .netrc, no cookies) is taken from outside.
"""

import ipaddress
import os
import urllib.request
from functools import cache
from urllib.parse import urlsplit

import certifi

from promptmill.claude.tls import ResumingContext
from promptmill.errors import ConfigurationError


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for this URL; None for this machine's own addresses.

    Raises:
        ConfigurationError: the proxy is no HTTP proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_local(host) or urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        name = f"{parts.scheme}_proxy".upper()
        raise ConfigurationError(f"{name}: only HTTP proxies can be used", setting=name)
    return proxy


@cache
def tls_context() -> ResumingContext:
    """One context for all connections of the process: reading the certificates takes tens of milliseconds."""
    context = ResumingContext()
    if file := os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(cafile=file)
    elif folder := os.environ.get("SSL_CERT_DIR"):
        context.load_verify_locations(capath=folder)
    else:
        context.load_verify_locations(cafile=certifi.where())
    return context


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
