"""The former place of `freezeflow.params`, for packages that import it from here."""

from freezeflow.params import *  # noqa: F403
