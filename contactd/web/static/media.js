// Screens by WebRTC, one way only: the user's screen to an engineer (a leg of the session), or an
// engineer's to the user (leg 0, a lesson). What browsers say to each other goes through the
// broker, which carries it only while the leg is open. Who shows always offers; who looks says
// "ready" when they come, and is then offered anew. Each offer has a number, and what belongs to
// an older one is dropped: no order of messages and reloads leaves two that wait for each other.
const CHUNK_MS = 1000; // of a recording: so much is lost when a browser dies
const CHUNK_BYTES = 1 << 20; // the broker takes no more at a time
const RECORDED_BITS = 1_500_000; // a second
const SHOWN_BITS = 4_000_000;
const PATIENCE_MS = 20_000; // of a connection, until we try another
const KINDS = ["video/webm;codecs=vp8", "video/webm;codecs=vp9", "video/webm"];

export const canShow = () => Boolean(navigator.mediaDevices?.getDisplayMedia);

// Let the user choose what to show; only in a click. Without sound: nobody agreed to that.
export const choose = () =>
  navigator.mediaDevices.getDisplayMedia({
    video: { frameRate: { max: 15 } }, // a screen is no film
    audio: false,
  });

// One connection from who shows. It is made again when the other side comes again.
function source({ stream, ice, say }) {
  let wire = null;
  let number = 0;
  let timer = 0;
  let waiting = []; // candidates that came before the answer

  function drop() {
    clearTimeout(timer);
    wire?.close();
    wire = null;
    waiting = [];
  }

  async function offer() {
    drop();
    number += 1;
    const own = number;
    const made = new RTCPeerConnection({ iceServers: ice });
    wire = made;
    made.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate && made === wire) say({ offer: own, candidate: candidate.toJSON() });
    });
    made.addEventListener("connectionstatechange", () => {
      if (made === wire && made.connectionState === "failed") offer();
    });
    timer = setTimeout(() => {
      if (made === wire && made.connectionState !== "connected") offer();
    }, PATIENCE_MS);
    for (const track of stream.getVideoTracks()) {
      track.contentHint = "detail"; // letters, rather than movement
      const { sender } = made.addTransceiver(track, {
        direction: "sendonly",
        streams: [stream],
        sendEncodings: [{ maxBitrate: SHOWN_BITS }],
      });
      const how = sender.getParameters();
      how.degradationPreference = "maintain-resolution";
      sender.setParameters(how).catch(() => {});
    }
    await made.setLocalDescription();
    if (made === wire) say({ offer: own, description: made.localDescription.toJSON() });
  }

  return {
    offer,
    end: drop,
    async signal(data) {
      if (data.ready) {
        await offer();
        return;
      }
      if (!wire || data.offer !== number) return;
      if (data.description && wire.signalingState === "have-local-offer") {
        await wire.setRemoteDescription(data.description);
        for (const each of waiting.splice(0)) await wire.addIceCandidate(each);
      } else if (data.candidate) {
        if (wire.remoteDescription) await wire.addIceCandidate(data.candidate);
        else waiting.push(data.candidate);
      }
    },
  };
}

// One recording, in pieces that the broker takes and in their order.
function recording({ stream, record, failed }) {
  const mimeType = KINDS.find((each) => MediaRecorder.isTypeSupported(each));
  const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: RECORDED_BITS });
  let isOpen = true;
  let last = Promise.resolve();

  async function pass(blob) {
    const bytes = await blob.arrayBuffer();
    for (let at = 0; at < bytes.byteLength && isOpen; at += CHUNK_BYTES) {
      record(bytes.slice(at, at + CHUNK_BYTES));
    }
  }

  function broken() {
    if (isOpen) failed();
    isOpen = false;
  }

  recorder.addEventListener("dataavailable", ({ data }) => {
    last = last.then(() => pass(data)).catch(broken);
  });
  recorder.addEventListener("error", broken);
  // It also stops by itself, when the browser takes the screen away: then the session ends anyway.
  recorder.start(CHUNK_MS);
  return {
    end() {
      isOpen = false;
      if (recorder.state !== "inactive") recorder.stop();
    },
  };
}

// The user's page shows `stream`: `open` for each leg that the user agreed to, and nothing before.
// `record(leg, bytes)` gets a WebM file in pieces, one file a leg; `failed()`: that is not possible
// any more, and what cannot be recorded is not shown.
export function sharer({ stream, ice = [], send, record, failed = () => {} }) {
  const legs = new Map();

  function close(leg) {
    const found = legs.get(leg);
    legs.delete(leg);
    found?.tape.end();
    found?.wire.end();
  }

  function end() {
    for (const leg of [...legs.keys()]) close(leg);
    for (const track of stream.getTracks()) track.stop();
  }

  function broken() {
    end();
    failed();
  }

  return {
    close,
    end,
    open(leg) {
      if (legs.has(leg)) return;
      try {
        const tape = recording({
          stream,
          record: (bytes) => record(leg, bytes),
          failed: broken,
        });
        const wire = source({ stream, ice, say: (data) => send(leg, data) });
        legs.set(leg, { tape, wire });
        wire.offer().catch(() => {});
      } catch {
        broken();
      }
    },
    signal(leg, data) {
      legs.get(leg)?.wire.signal(data).catch(() => {}); // a bad signal is the sender's loss
    },
  };
}

// Who looks. `leg` is the own leg's number (0: a lesson); without it the first signal tells.
// `onState` hears "connecting", "connected", "failed" and "ended".
export function viewer({ video, ice = [], send, onState = () => {}, leg = 0 }) {
  let wire = null;
  let number = 0;
  let own = leg;
  let last = Promise.resolve();

  function drop() {
    wire?.close();
    wire = null;
    video.srcObject = null;
  }

  function take(offer) {
    drop();
    number = offer;
    const made = new RTCPeerConnection({ iceServers: ice });
    wire = made;
    made.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate && made === wire) send(own, { offer, candidate: candidate.toJSON() });
    });
    made.addEventListener("connectionstatechange", () => {
      if (made === wire) onState(made.connectionState);
    });
    made.addEventListener("track", ({ track, streams }) => {
      if (made !== wire || track.kind !== "video") return;
      video.srcObject = streams[0] ?? new MediaStream([track]);
      video.play().catch(() => {}); // muted videos may always play
    });
    onState("connecting");
    return made;
  }

  async function answer(data) {
    if (data.description?.type === "offer" && data.offer > 0) {
      const made = take(data.offer);
      await made.setRemoteDescription(data.description);
      // Nothing of ours is sent: no track, so that the answer can only be "recvonly".
      await made.setLocalDescription();
      if (made === wire) {
        send(own, { offer: data.offer, description: made.localDescription.toJSON() });
      }
    } else if (data.candidate && wire && data.offer === number) {
      await wire.addIceCandidate(data.candidate);
    }
  }

  video.muted = true;
  send(own, { ready: true });
  return {
    // One after the other: a candidate is of use only after its offer.
    signal(from, data) {
      own = from;
      last = last.then(() => answer(data)).catch(() => {});
    },
    end() {
      drop();
      onState("ended");
    },
  };
}

// An engineer shows their own screen. `start` in the click; it fails if they choose nothing.
// `onEnd` is called when they stop it in the browser's own bar.
export function teacher({ ice = [], send, onEnd = () => {} }) {
  let stream = null;
  let wire = null;

  function end() {
    wire?.end();
    for (const track of stream?.getTracks() ?? []) track.stop();
    wire = null;
    stream = null;
  }

  return {
    end,
    async start() {
      end();
      stream = await choose();
      wire = source({ stream, ice, say: (data) => send(0, data) });
      for (const track of stream.getTracks()) {
        track.addEventListener("ended", () => {
          end();
          onEnd();
        });
      }
      await wire.offer();
    },
    signal(_leg, data) {
      wire?.signal(data).catch(() => {});
    },
  };
}
