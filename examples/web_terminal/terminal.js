// The page: a terminal that shows the session whose id stands in the address, "#id=work" say, so
// that a reload, a bookmark or another browser finds it again.

import { FitAddon } from "./node_modules/@xterm/addon-fit/lib/addon-fit.mjs";
import { Terminal } from "./node_modules/@xterm/xterm/lib/xterm.mjs";
import { RemoteProcess } from "./wire.js";

const COMMAND = { command: "bash", env: ["TERM=xterm-256color", "COLORTERM=truecolor"] };

// Milliseconds before the first and the longest pause between attempts to connect again.
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15000;

// Codes that a WebSocket is closed with when nothing is wrong with what we asked for: the server
// ends, or is restarted, or the connection is lost. RFC 6455, section 7.4.1, and its registry.
const LOST = [1001, 1005, 1006, 1012, 1013, 1014];

// Milliseconds after which the list of sessions is asked for again.
const LIST_PAUSE = 5000;

// Bytes that may wait to be shown: a page cannot hold up a WebSocket, and a program can write
// faster than any terminal shows it. More than a redraw has; xterm.js gives up at 50 MB.
const MAX_WAITING = 16 << 20;

const encoder = new TextEncoder();

const terminal = new Terminal({ scrollback: 5000 });
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("terminal"));
terminal.onData((text) => type(encoder.encode(text)));
// What is not text, such as the mouse in its oldest encoding: a byte per character.
terminal.onBinary((text) => type(Uint8Array.from(text, (character) => character.charCodeAt(0))));
terminal.onResize(({ rows, cols }) => remote?.resize(rows, cols));
terminal.onTitleChange((title) => (document.title = title || "Terminal"));
new ResizeObserver(() => fit.fit()).observe(document.getElementById("terminal"));

let remote = null; // the connection, while there is one
let attempt = 0; // counts them: whatever belongs to an older one is of no interest any more
let pause = FIRST_PAUSE;
let timer = null; // of the next attempt, if there is to be one
let known = ""; // the id of a session that we were attached to, and expect to find again
let waiting = 0; // bytes that the terminal has not shown yet
let typed = null; // an array of what was typed while the terminal is catching up
let listed = ""; // what the list of sessions was made of

function id() {
  return new URLSearchParams(location.hash.slice(1)).get("id") ?? "";
}

function address(id) {
  return `#${new URLSearchParams({ id })}`;
}

function say(text) {
  document.getElementById("status").textContent = text;
}

function type(bytes) {
  if (typed) {
    typed.push(bytes);
  } else {
    remote?.write(bytes);
  }
}

// Connecting

async function connect() {
  leave();
  const mine = attempt;
  if (!id()) {
    const random = crypto.getRandomValues(new Uint32Array(1))[0].toString(16);
    history.replaceState(null, "", address(`web-${random}`));
  }
  // Asked for first because a WebSocket that is refused does not say why.
  const answer = await list();
  if (mine !== attempt) {
    return;
  }
  document.getElementById("login").hidden = answer?.status !== 401;
  if (answer === null) {
    connectLater();
  } else if (answer.status === 401) {
    say("This server wants a token.");
    document.getElementById("token").focus();
  } else if (!answer.ok) {
    say(`Refused: ${answer.status} ${answer.statusText}`);
  } else {
    attach();
  }
}

function leave() {
  attempt += 1;
  clearTimeout(timer);
  timer = null;
  remote?.close();
  remote = null;
}

function connectLater() {
  leave();
  say(`The connection is lost. Next attempt in ${pause / 1000} s.`);
  timer = setTimeout(connect, pause);
  pause = Math.min(2 * pause, LONGEST_PAUSE);
}

function attach() {
  leave();
  const session = id();
  let ended = false;
  fit.fit();
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  const { rows, cols } = terminal;
  const command = { ...COMMAND, tty: true, stdin: true, rows, cols };
  const token = sessionStorage.getItem("token") ?? undefined;
  remote = new RemoteProcess(url, { id: session, command, token });

  remote.onstart = ({ reattached }) => {
    say(session === known && !reattached ? "The session had ended. This is a new one." : "");
    known = session;
    pause = FIRST_PAUSE;
    // Whatever is there, an earlier screen or another session's, what comes now is all of it. As
    // a sequence, for it takes its turn behind the output that waits.
    terminal.write("\x1bc");
    remote.resize(terminal.rows, terminal.cols); // it may have changed meanwhile
    typed?.forEach((bytes) => remote.write(bytes));
    typed = null;
    list();
    terminal.focus();
  };
  remote.onoutput = (bytes) => {
    waiting += bytes.length;
    terminal.write(bytes, () => {
      waiting -= bytes.length;
      if (waiting === 0 && typed && !remote) {
        attach();
      }
    });
    if (waiting > MAX_WAITING) {
      // Leave until all that has come is shown. Whoever comes back gets what the screen shows
      // then, and what was written in between is not missed by anybody.
      leave();
      typed = [];
    }
  };
  remote.onexit = ({ exit_code, error }) => {
    ended = true;
    known = "";
    say(error ? `Ended: ${error}.` : `Ended with status ${exit_code}.`);
    list();
  };
  remote.onclose = ({ code, reason }) => {
    remote = null;
    typed = null;
    if (ended) {
      return;
    }
    if (LOST.includes(code)) {
      connectLater();
    } else {
      say(`Refused: ${reason || code}`);
    }
  };
}

// The list of sessions

// Returns the response, or null if there was none.
async function list() {
  const token = sessionStorage.getItem("token");
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  try {
    const answer = await fetch("sessions", { headers });
    if (answer.ok) {
      show(await answer.json());
    }
    return answer;
  } catch {
    return null;
  }
}

function show(sessions) {
  const entries = sessions.map(({ id, command, clients }) => [
    id,
    `${command.join(" ")}, ${clients} attached`,
  ]);
  const state = JSON.stringify([entries, id()]);
  if (state === listed) {
    return; // a link that is replaced loses the focus, and a click that is half done
  }
  listed = state;
  const links = entries.map(([session, title]) => {
    const link = document.createElement("a");
    link.href = address(session);
    link.textContent = session;
    link.title = title;
    if (session === id()) {
      link.setAttribute("aria-current", "page");
    }
    return link;
  });
  document.getElementById("sessions").replaceChildren(...links);
}

setInterval(() => document.hidden || list(), LIST_PAUSE);

// What the user does, terminal aside

function start() {
  pause = FIRST_PAUSE;
  typed = null;
  say("");
  connect();
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", document.getElementById("token").value);
  start();
});
addEventListener("hashchange", start);
addEventListener("online", () => timer === null || start());
start();
