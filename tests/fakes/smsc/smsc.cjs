// An SMSC made of the npm package `smpp`: it says on stdout what comes to it, a JSON object a line,
// and does what it is told on stdin. argv: port, password.
'use strict';
const readline = require('node:readline');
const smpp = require('smpp');

const [port, password] = [Number(process.argv[2]), process.argv[3]];
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
let session = null;  // the one that is bound
let answer = 'taken';  // or throttled, refused, silent, receipt-first, dies: what comes of a text
let isMute = false;  // enquire_link is not answered
let ids = 0x1f0;

function receipt(pdu, id) {
  return {
    source_addr: pdu.destination_addr, destination_addr: pdu.source_addr, esm_class: 4,
    short_message: Buffer.from(`id:${id} sub:001 dlvrd:001 submit date:2611200200 ` +
      'done date:2611200201 stat:DELIVRD err:000 text:'),
  };
}

function take(pdu) {
  const {message, udh} = pdu.short_message;
  say({
    event: 'submit', source: pdu.source_addr, destination: pdu.destination_addr,
    ton: pdu.dest_addr_ton, coding: pdu.data_coding, message, wants: pdu.registered_delivery,
    udh: udh ? udh.map((element) => Buffer.from(element).toString('hex')) : [],
  });
  const id = (ids++).toString(16).toUpperCase();
  const reply = () => session.send(pdu.response({message_id: id}));
  switch (answer) {
    case 'throttled': return session.send(pdu.response({command_status: smpp.ESME_RTHROTTLED}));
    case 'refused': return session.send(pdu.response({command_status: smpp.ESME_RINVDSTADR}));
    case 'silent': return undefined;
    case 'dies': return process.exit(9);
    case 'receipt-first': return session.deliver_sm(receipt(pdu, id), reply);
    default: return reply();
  }
}

smpp.createServer((peer) => {
  peer.on('error', () => {});
  peer.on('close', () => { if (session === peer) session = null; say({event: 'closed'}); });
  peer.on('bind_transceiver', (pdu) => {
    if (pdu.password !== password) {
      peer.send(pdu.response({command_status: smpp.ESME_RINVPASWD}));
      return peer.close();
    }
    session = peer;
    peer.send(pdu.response({system_id: 'npm-smpp'}));
    return say({event: 'bound', system_id: pdu.system_id});
  });
  peer.on('enquire_link', (pdu) => { if (!isMute) peer.send(pdu.response()); });
  peer.on('unbind', (pdu) => {
    say({event: 'unbound'});
    peer.send(pdu.response());
    peer.close();
  });
  peer.on('submit_sm', take);
}).listen(port, '127.0.0.1', () => say({event: 'listening'}));

// {"do": "answer", "how": …} {"do": "mute"} {"do": "cut"}
// {"do": "deliver", "key": any, "pdu": {…}}: bytes are hexadecimal. A link that ends says nothing.
readline.createInterface({input: process.stdin}).on('line', (line) => {
  const order = JSON.parse(line);
  if (order.do === 'answer') answer = order.how;
  if (order.do === 'mute') isMute = true;
  if (order.do === 'cut') session.destroy();
  if (order.do !== 'deliver') return say({event: 'told'});
  const pdu = order.pdu;
  for (const name of ['short_message', 'message_payload']) {
    if (name in pdu) pdu[name] = Buffer.from(pdu[name], 'hex');
  }
  return session.deliver_sm(pdu, (reply) => {
    say({event: 'acknowledged', key: order.key, status: reply.command_status});
  });
}).on('close', () => process.exit(0));
