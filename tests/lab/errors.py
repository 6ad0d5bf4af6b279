"""What can go wrong with the lab itself?"""


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message names the object and the next step."""


class LabUnavailable(LabError):
    """This machine cannot hold a lab; the message lists everything that is missing."""
