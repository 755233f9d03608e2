"""--health-* options as the API's Healthcheck document.

Source  docker run's reference, "HEALTHCHECK".
"""

from minidocker.cli.options import Options
from minidocker.cli.session import CommandFailure

_NUMBERS = {"health-interval": "Interval", "health-timeout": "Timeout", "health-start-period": "StartPeriod",
            "health-start-interval": "StartInterval", "health-retries": "Retries"}


def healthcheck(options: Options) -> dict[str, object]:
    """The document; durations in nanoseconds. Raises CommandFailure (125)."""
    if options.flag("no-healthcheck"):
        if any(map(options.given, ("health-cmd", *_NUMBERS))):
            raise CommandFailure("--no-healthcheck conflicts with --health-* options", 125)
        return {"Test": ["NONE"]}
    document: dict[str, object] = {}
    if options.text("health-cmd"):
        document["Test"] = ["CMD-SHELL", options.text("health-cmd")]
    for name, key in _NUMBERS.items():
        value = options.number(name)
        if value < 0:
            raise CommandFailure(f"--{name} cannot be negative", 125)
        document[key] = value
    return document
