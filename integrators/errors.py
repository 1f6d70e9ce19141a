"""What an estimator says instead of returning a gradient that is quietly wrong."""

from __future__ import annotations


class UnsupportedGradient(Exception):
    """A derivative that the estimator cannot compute; raised before any sample is spent.

    Args:
        message: what cannot be differentiated and why.
        key: the scene parameter concerned (a key of `mi.traverse`), if one.
        remedy: what to use instead.
    """

    def __init__(self, message: str, key: str | None = None, remedy: str | None = None) -> None:
        self.message = message
        self.key = key
        self.remedy = remedy
        super().__init__((f"{key}: " if key else "") + message + (f"; {remedy}" if remedy else ""))


class GradientWarning(UserWarning):
    """A gradient that is right only in part, with a stable code and a remedy."""

    def __init__(self, code: str, message: str, remedy: str | None = None) -> None:
        self.code = code
        self.message = message
        self.remedy = remedy
        super().__init__(f"[{code}] {message}" + (f"; {remedy}" if remedy else ""))
