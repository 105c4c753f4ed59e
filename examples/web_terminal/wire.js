// The wire in a browser: one WebSocket, one command on a terminal.
//
// Each message is binary: a JSON header, a newline, a body of raw bytes. Nothing here knows of
// terminals or pages.

// The longest message in bytes, header included; the server closes with 1009 on a longer one.
const MAX_MESSAGE = 64000;

const NEWLINE = 10;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function encode(header, body = new Uint8Array()) {
  const head = encoder.encode(JSON.stringify(header) + "\n");
  const message = new Uint8Array(head.length + body.length);
  message.set(head);
  message.set(body, head.length);
  return message;
}

export class RemoteProcess {
  // Start a command, or attach to the session that has this id. What happens then is told by
  // calling these properties, none of them before the constructor's caller has returned:
  //
  // onstart(header)  the command runs; header.reattached says that it did before
  // onoutput(bytes)  what it wrote, as a Uint8Array
  // onexit(header)   it has ended, with header.exit_code; header.error says more
  // onclose(event)   the connection has ended, last and once; not after close()
  onstart = () => {};
  onoutput = () => {};
  onexit = () => {};
  onclose = () => {};

  #socket;

  // The command's fields are those of the start message. A token is undefined if none is needed.
  constructor(url, { id, command, token }) {
    // A browser can send a token with a WebSocket in no other header than this one.
    const protocols = token === undefined ? ["wsep"] : ["wsep", `bearer.${token}`];
    this.#socket = new WebSocket(url, protocols);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#send({ type: "start", id, command });
    this.#socket.onmessage = (event) => this.#dispatch(new Uint8Array(event.data));
    this.#socket.onclose = (event) => this.onclose(event);
  }

  // Send input. It is lost if the command does not run any more, or not yet.
  write(bytes) {
    const room = MAX_MESSAGE - encode({ type: "stdin" }).length;
    for (let start = 0; start < bytes.length; start += room) {
      this.#send({ type: "stdin" }, bytes.subarray(start, start + room));
    }
  }

  resize(rows, cols) {
    this.#send({ type: "resize", rows, cols });
  }

  // Leave: a session goes on without us. Nothing is called any more.
  close() {
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  #send(header, body) {
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.send(encode(header, body));
    }
  }

  #dispatch(message) {
    const end = message.indexOf(NEWLINE);
    const header = JSON.parse(decoder.decode(message.subarray(0, end)));
    if (header.type === "stdout") {
      this.onoutput(message.subarray(end + 1));
    } else if (header.type === "pid") {
      this.onstart(header);
    } else if (header.type === "exit_code") {
      this.onexit(header);
      this.#socket.close(1000);
    } // Of any other type: an addition that we have not asked for.
  }
}
