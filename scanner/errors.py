"""The one error tree. Every error says whether another try can help (retry) or not (final).

Messages are written for a person and never contain a secret, nor bytes that came from a scanned
object or a response body.
"""

from __future__ import annotations

import traceback


class PatrolError(Exception):
    """Base of all errors Patrol raises on purpose; `retry` says whether another try can help."""

    retry: bool = False


class RetryableError(PatrolError):
    """Another attempt later may succeed; work that met it goes back to the queue."""

    retry = True


class FinalError(PatrolError):
    """No attempt will succeed until a person changes something; work that met it is parked."""


class ConfigurationError(FinalError):
    """A setting, a file or the machine is not as it must be; the message says what to do."""


class IntakeError(FinalError):
    """A request from outside was refused; `status` is the HTTP status that says so, `code` the
    word it is counted under."""

    status: int = 400
    code: str = "payload"


class SignatureInvalidError(IntakeError):
    """The request's signature is missing or does not verify."""

    status = 401
    code = "signature"


class PayloadTooLargeError(IntakeError):
    """The request's body is larger than the sender's own documented maximum."""

    status = 413
    code = "too_large"


class RequestTimeoutError(IntakeError):
    """The request's body did not come in time."""

    status = 408
    code = "timeout"


class PayloadInvalidError(IntakeError):
    """The body is signed, but is not what the sender documents."""

    status = 400


class RepositoryForbiddenError(IntakeError):
    """The hook that signed the request may not speak for that repository."""

    status = 403
    code = "forbidden"


class RequestInvalidError(IntakeError):
    """What was asked cannot be done as it was asked, e.g. a field that is too long."""

    status = 422


class NotFoundError(IntakeError):
    """There is no such thing, or none of that name."""

    status = 404


class ConflictError(IntakeError):
    """What was asked does not go together with what is there, e.g. a name that is taken."""

    status = 409


class ConnectError(PatrolError):
    """A connection was not made; who wanted it says so in its own words."""


class ConnectForbiddenError(ConnectError, FinalError):
    """The connect guard forbids that address."""


class ConnectFailedError(ConnectError, RetryableError):
    """The host has no address at the moment."""


class FetchError(PatrolError):
    """Objects could not be fetched from a repository."""


class FetchUnavailableError(FetchError, RetryableError):
    """The remote end failed or timed out; later may be better."""


class FetchTooSlowError(FetchUnavailableError):
    """The time for the fetch was over; less of the repository may come in time."""


class FetchRefusedError(FetchError, FinalError):
    """The remote end has no such repository or object, or a guard forbids the connection."""


class FetchTooLargeError(FetchRefusedError):
    """The answer is larger than the bound; nothing of it was used."""


class NotServedError(FetchRefusedError):
    """The repository's host says that there is no such thing, or not for everybody. Soon after a
    push that may pass: a webhook can be quicker than the host's own replicas."""


class ObjectNotFoundError(NotServedError):
    """The repository does not serve one of the wanted objects."""


class MalformedPackError(FetchError, FinalError):
    """The pack's bytes break the format; fetching it again would bring the same bytes."""


class InspectionError(RetryableError):
    """The child process that reads packs died or overran its time; its input may be to blame."""


class InspectionTooLargeError(InspectionError):
    """The pack needs more time or memory than its reader may have; a smaller one may do."""


class OutOfTimeError(RetryableError):
    """A task's time was over before this part of its work was done."""


class LedgerFalseError(RetryableError):
    """The blob ledger knew a file that holds something: it was emptied, the scan begins anew."""


class LeaseLostError(RetryableError):
    """Another worker holds this work now; whatever was done here is discarded."""


class StoreError(PatrolError):
    """A token store did not do what was asked."""


class StoreUnavailableError(StoreError, RetryableError):
    """The store did not answer; nothing is known about the candidates."""


class SecretNeededError(StoreError, FinalError):
    """The store revokes only by the raw token, and none was given: a person has to revoke."""


class StoreUntrustedError(StoreError, RetryableError):
    """The store knew a token that was never issued: none of its answers may be acted on."""


def name_of(error: Exception) -> str:
    """Say where an error nobody expected came from; its own text may hold anything, a token too."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {place.name}, line {place.lineno}"
