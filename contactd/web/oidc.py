"""Log in at an OpenID Connect provider (Core 1.0): authorization code with PKCE, state and nonce.

Only loaded when one is configured. Its metadata and keys are asked for anew at each log-in: those
are few, and keys that were changed or withdrawn count at once. When it is away, the form for
passwords still works.
"""

import base64
import hashlib
import json
import secrets
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from contactd.clock import Clock
from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.settings import OidcSettings
from contactd.store.accounts import Grant
from contactd.tickets.people import Role

log = get_logger()

CALLBACK: Final = "/login/oidc/callback"
# What is signed with the provider's own key alone: never `none`, nor with our shared secret.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
                     "ES512", "EdDSA", "Ed25519")  # fmt: skip
LEEWAY_S: Final = 60  # its clock and ours
LONGEST_ANSWER: Final = 1 << 20
ALL_SITES: Final = "*"
LONGEST_SUBJECT: Final = 255  # OpenID Connect Core section 2
# Of several roles that somebody is given, the one that may most.
RANKS: Final = (
    Role.ADMIN, Role.SUPERVISOR, Role.MANAGER, Role.DESK, Role.ENGINEER, Role.QUALITY,
    Role.OPERATIONS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to send the browser; the rest it keeps, sealed, until it is back."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Whom the provider knows; `subject` is theirs for ever, whatever they are called."""

    subject: str
    name: str
    grant: Grant


class Provider:
    """One provider.

    Raises:
        ConfigurationError: its settings are not enough to ask it.
    """

    def __init__(self, settings: OidcSettings, *, public_url: str, clock: Clock) -> None:
        if not public_url:
            raise ConfigurationError("http.public_url: the OIDC provider must return somewhere")
        self._settings = settings
        self._redirect = public_url.rstrip("/") + CALLBACK
        self._clock = clock
        given = (each.rpartition("=") for each in settings.roles)
        self._roles = {value: Role(role) for value, _, role in given}
        try:
            self._trust = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise ConfigurationError(f"oidc.ca_file: {error}") from error

    @property
    def label(self) -> str:
        """Return what the button says; "" if it was not said."""
        return self._settings.label

    async def begin(self) -> Start:
        """Return where somebody logs in.

        Raises:
            TemporaryFailure: the provider is away.
        """
        async with self._session() as session:
            metadata = await self._metadata(session)
        state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()  # RFC 7636 section 4.2
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        endpoint = _endpoint(metadata, "authorization_endpoint")
        mark = "&" if urlsplit(endpoint).query else "?"
        url = f"{endpoint}{mark}{urlencode(asked, quote_via=quote)}"
        return Start(url=url, state=state, nonce=nonce, verifier=verifier)

    async def finish(self, code: str, *, verifier: str, nonce: str, issuer: str) -> Known:
        """Return who logged in; `issuer` is what the answer named itself, "" if it did not.

        Raises:
            TemporaryFailure: the provider is away.
            PermanentFailure: what it says cannot be believed, or lets them in nowhere here.
        """
        if issuer and issuer != self._settings.issuer:  # RFC 9207 section 2.4
            raise PermanentFailure("the answer is another provider's")
        async with self._session() as session:
            metadata = await self._metadata(session)
            answer = await self._exchange(session, metadata, code, verifier)
            keys = await _json(session.get(_endpoint(metadata, "jwks_uri")))
            claims = self._believed(str(answer.get("id_token", "")), keys, nonce)
            if _claim(claims, self._settings.role_claim) is None:
                claims = await self._more(session, metadata, answer, claims)
        return self._known(claims)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        return aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(ssl=self._trust)
        )

    async def _metadata(self, session: aiohttp.ClientSession) -> Mapping[str, Any]:
        """Return what the provider says of itself (OpenID Connect Discovery 1.0 section 4)."""
        address = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await _json(session.get(address))
        if found.get("issuer") != self._settings.issuer:  # section 4.3
            raise TemporaryFailure("oidc.issuer: the provider calls itself something else")
        return found

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        metadata: Mapping[str, Any],
        code: str,
        verifier: str,
    ) -> Mapping[str, Any]:
        """Return what the code is worth (RFC 6749 section 4.1.3)."""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": verifier,
        }
        ours, secret = self._settings.client_id, self._settings.client_secret.get_secret_value()
        ways = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        headers = {}
        if secret and "client_secret_basic" in ways:  # each half is encoded: section 2.3.1
            pair = f"{quote(ours, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            fields |= {"client_id": ours} | ({"client_secret": secret} if secret else {})
        endpoint = _endpoint(metadata, "token_endpoint")
        return await _json(session.post(endpoint, data=fields, headers=headers))

    def _believed(self, token: str, keys: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """Return what an ID token says, once it is proved (Core section 3.1.3.7)."""
        ours = self._settings.client_id
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": ours},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = jwt.decode(
                token, KeySet.import_key_set({"keys": keys["keys"]}), ALGORITHMS
            ).claims
            registry.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise PermanentFailure(f"the ID token is not good: {type(error).__name__}") from error
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        one = all(isinstance(claims[name], str) for name in ("iss", "sub", "nonce"))
        if not one or (several and claims.get("azp") != ours) or claims.get("azp", ours) != ours:
            raise PermanentFailure("the ID token is for somebody else")
        return claims

    async def _more(
        self,
        session: aiohttp.ClientSession,
        metadata: Mapping[str, Any],
        answer: Mapping[str, Any],
        claims: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Add what only the provider's UserInfo end point tells (Core section 5.3)."""
        if "userinfo_endpoint" not in metadata:
            return claims
        headers = {"Authorization": f"Bearer {answer.get('access_token', '')}"}
        more = await _json(session.get(_endpoint(metadata, "userinfo_endpoint"), headers=headers))
        if more.get("sub") != claims["sub"]:  # section 5.3.2
            raise PermanentFailure("the provider speaks of somebody else")
        return {**more, **claims}

    def _known(self, claims: Mapping[str, Any]) -> Known:
        wanted = self._settings
        given = {self._roles[each] for each in _texts(claims, wanted.role_claim) & {*self._roles}}
        role = next((each for each in RANKS if each in given), None)
        if role is None:
            raise PermanentFailure("no role: see oidc.role_claim and oidc.roles")
        subject = f"{wanted.issuer} {claims['sub']}"
        if len(subject) > LONGEST_SUBJECT:
            raise PermanentFailure("the subject is too long")
        engineers = sorted(_texts(claims, wanted.engineer_claim)) if wanted.engineer_claim else []
        name = _claim(claims, wanted.name_claim)
        if not isinstance(name, str) or not name.strip():
            raise PermanentFailure("no name: see oidc.name_claim")
        return Known(
            subject=subject,
            name=name.strip(),
            grant=Grant(role=role, sites=self._sites(claims), engineer=next(iter(engineers), "")),
        )

    def _sites(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Return the sites whose tickets somebody sees; who is given none sees none, not all."""
        if not self._settings.sites_claim:
            return frozenset()
        found = _texts(claims, self._settings.sites_claim)
        if not found:
            raise PermanentFailure("no site: see oidc.sites_claim")
        return frozenset() if ALL_SITES in found else frozenset(found)


async def _json(request: Any) -> Mapping[str, Any]:
    """Return the object that an answer is.

    Raises:
        TemporaryFailure: there is no answer.
        PermanentFailure: it refuses.
    """
    with _translated():
        async with request as answer:
            body = await _read(answer)
            if answer.status >= 500:
                raise TemporaryFailure(f"the OIDC provider answers {answer.status}")
            if answer.status != 200:
                raise PermanentFailure(f"the OIDC provider answers {answer.status}")
            found = json.loads(body)
    if not isinstance(found, dict):
        raise TemporaryFailure("the OIDC provider answers something else")
    return found


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > LONGEST_ANSWER:
            raise TemporaryFailure("the OIDC provider answers too much")
    return body


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise TemporaryFailure(f"the OIDC provider is away: {type(error).__name__}") from error


def _endpoint(metadata: Mapping[str, Any], name: str) -> str:
    found = metadata.get(name)
    if not isinstance(found, str) or urlsplit(found).scheme not in ("https", "http"):
        raise TemporaryFailure(f"the OIDC provider names no {name}")
    return found


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim, also one in another: `realm_access.roles`."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _texts(claims: Mapping[str, Any], path: str) -> set[str]:
    """Return the texts of a claim that is one or a list of them."""
    found = _claim(claims, path)
    several = found if isinstance(found, list) else [found]
    return {each for each in several if isinstance(each, str) and each}
