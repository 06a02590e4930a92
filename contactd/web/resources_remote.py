"""What the API takes and gives of remote help."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from contactd.tickets.remote import Ending, Mode, Purpose, Right, State
from contactd.web.resources import Limit, Resource


class RemoteQuery(Resource):
    ticket: str = Field("", max_length=24, description="number")
    state: State | None = None
    cursor: str = Field("", max_length=40)
    limit: Limit = 50


class RemoteLeg(Resource):
    """One person who saw the screen, with the user's recorded yes."""

    number: int
    engineer: str = Field(description="as the user was told")
    user: str = Field(description="the name with which they log in")
    purpose: Purpose
    rights: tuple[Right, ...]
    opened_at: datetime
    ended_at: datetime | None
    ending: Ending | None
    keys: int = Field(description="how many were pressed, not which")
    clicks: int
    bytes: int
    recording: str | None = Field(description="SHA-256 of what was recorded")


class RemoteSession(Resource):
    id: int
    ref: str = Field(description="what the ticket's journal calls it")
    ticket: str
    state: State
    mode: Mode | None = Field(description="null until the user agreed")
    language: str
    medium: str = Field(description="how the link went out: text, mail, call, web, or nothing")
    invited_by: str
    invited_at: datetime
    agreed_at: datetime | None
    started_at: datetime | None = Field(description="somebody saw the screen")
    ended_at: datetime | None
    ending: Ending | None
    engineer: str = Field(description="who helps, as the user is told; empty: nobody yet")
    legs: tuple[RemoteLeg, ...]


class InviteRemote(Resource):
    medium: Literal["text", "mail"]


class RemoteInvitation(Resource):
    """The link was sent. Nobody but the requester sees it, and only they begin with it."""

    session: int
    url: str
    medium: str
    expires_at: datetime


class EndRemote(Resource):
    """Nothing need be said."""
