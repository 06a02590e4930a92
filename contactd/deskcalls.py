"""The calls of this moment as the workbench shows them, from every PBX."""

from contactd.board import STAGES
from contactd.clock import Clock
from contactd.telephony.calls import State
from contactd.telephony.dialling import CannotCall, Dialling, Wish
from contactd.telephony.outgoing import OutgoingCall, OutgoingCalls, Step
from contactd.telephony.service import Telephony
from contactd.web.board import CallStage
from contactd.web.calling import DeskCall, Ours
from contactd.web.callspage import Click, Refusal

_STAGES = {
    Step.YOU: CallStage.RINGING,
    Step.THEM: CallStage.OFFERED,
    Step.TALKING: CallStage.TALKING,
}
_ENDS = {"BUSY": "busy", "NOTYOU": "not_you", "ANSWER": ""}


class DeskCalls:
    """Where `desklive` looks: nothing of it is stored, and looking costs no I/O."""

    def __init__(self, telephony: Telephony, calling: OutgoingCalls, clock: Clock) -> None:
        self._telephony = telephony
        self._calling = calling
        self._clock = clock

    def __call__(self) -> tuple[DeskCall, ...]:
        """Return the calls that came in, then those that the desk makes."""
        came_in = [
            DeskCall(
                call_id=call.call_id,
                stage=STAGES[call.state],
                since=call.since,
                arrived_at=call.arrived_at,
                caller=call.caller,
                name=call.name,
                did=call.did,
                site=filed.site if filed else "",
                ticket=filed.ticket if filed else "",
                offered=call.offered,
                engineer=call.engineer if call.state is not State.TRANSFERRED else "",
            )
            for pbx in self._telephony.pbxs.values()
            for call, filed in pbx.live_calls()
            if call.state in STAGES
        ]
        return (*came_in, *map(_ours, self._calling.snapshot(self._clock.now())))


class Clicks:
    """What the page of calls rings people with."""

    def __init__(self, dialling: Dialling) -> None:
        self._dialling = dialling

    async def __call__(self, click: Click) -> None:
        callee = click.callee
        wish = Wish(
            ticket=callee.ticket,
            number=click.number,
            numbers=callee.numbers,
            language=callee.language,
            user=click.identity.name,
            engineer=click.identity.engineer,
            actor=click.actor,
            key=click.key,
        )
        try:
            await self._dialling.call(wish)
        except CannotCall as refusal:
            raise Refusal(refusal.why.value) from refusal


def _ours(call: OutgoingCall) -> DeskCall:
    return DeskCall(
        call_id=call.ref,
        stage=_STAGES.get(call.step),
        since=call.since,
        arrived_at=call.began_at,
        caller=call.number,
        ticket=call.ticket,
        engineer=call.engineer,
        ours=Ours(
            user=call.user,
            talked=call.talked_from is not None,
            end=_ENDS.get(call.word, "no_answer") if call.talked_from is None else "",
        ),
    )
