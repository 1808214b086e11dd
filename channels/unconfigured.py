"""The sender of a channel that has no credentials or no SDK: it fails what it is given and says why (C6)."""

from tocsin.channels.contract import Message, Outcome, OutcomeKind
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import SettingError


class Unconfigured:
    """Sends nothing. `lacking` is what to mend, such as "sms.twilio.account_sid: not set"."""

    configured = False
    concurrency = 1
    timeout_s = 1.0

    def __init__(self, channel: Channel, provider: str, lacking: str) -> None:
        self.channel = channel
        self.provider = provider
        self._lacking = lacking

    async def send(self, message: Message) -> Outcome:
        return Outcome(OutcomeKind.PERMANENT, Reason.NOT_CONFIGURED, message=self._lacking)

    async def check(self) -> None:
        raise SettingError(self._lacking)

    async def close(self) -> None:
        pass
