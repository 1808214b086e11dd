"""What is said of people who cannot be understood: never who they are, for it ends in a log line (H3)."""

import pytest
from pydantic import ValidationError

from tocsin.domain.event import Contact, Event, Recipient


@pytest.mark.parametrize("kind", [Recipient, Contact, Event])
def test_what_cannot_be_understood_is_not_quoted(kind: type[Recipient | Contact | Event]) -> None:
    with pytest.raises(ValidationError) as raised:
        kind.model_validate({"id": 1, "email": ["asha@example.org"], "message": ["asha@example.org"]})
    assert "asha" not in f"{raised.value}{raised.value!r}"
