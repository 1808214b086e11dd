"""Push through Firebase Cloud Messaging: its settings. Sending is in `senders.fcm`, which is imported when FCM is
configured: the SDK takes half a second and 20 MB.
"""

from importlib.util import find_spec
from typing import Final

from pydantic import Field

from tocsin.channels.contract import BuildContext, Provider, RatedTable, Sender
from tocsin.channels.unconfigured import Unconfigured
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.units import DurationMs

SECTION: Final = "push.fcm"
_GOOGLE: Final = "https://fcm.googleapis.com"


class FcmSettings(RatedTable):
    """The table `push.fcm`."""

    project_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.:_-]+$")
    private_key: str | None = Field(default=None, repr=False)
    client_email: str | None = None
    base_url: str = _GOOGLE
    timeout: DurationMs = 20_000
    concurrency: int = Field(default=4, ge=1, le=200)

    @property
    def token_uri(self) -> str:
        """Where access tokens come from: Google's, or beside a server that stands in FCM's place."""
        return "https://oauth2.googleapis.com/token" if self.base_url == _GOOGLE else f"{self.base_url}/token"


def _build(settings: FcmSettings, context: BuildContext) -> Sender:
    provider = "sandbox" if context.sandbox else "fcm"
    if settings.project_id is None:
        return Unconfigured(Channel.PUSH, provider, f"{SECTION}.project_id: not set, so push is not configured")
    if find_spec("firebase_admin") is None:
        return Unconfigured(Channel.PUSH, provider, f"{SECTION}: the package firebase-admin is not installed")
    for name in ("private_key", "client_email"):
        if getattr(settings, name) is None:
            raise SettingError(f"{SECTION}.{name}: set it with the project, or unset {SECTION}.project_id")
    from tocsin.channels.senders.fcm import FcmSender  # noqa: PLC0415  # see the module's docstring

    return FcmSender(settings, context, provider)


PROVIDER: Final = Provider("fcm", Channel.PUSH, SECTION, FcmSettings, _build)
