// One live stream for all tabs of a browser, for it has few connections to one host. A shared worker: each tab says which
// page it shows, and gets what is new on it.
"use strict";

const tabs = new Map();
let source = null;
let waits = 0;

const tell = (message, page) => {
  for (const [port, tab] of tabs) if (page === undefined || tab.page === page) port.postMessage(message);
};

function connect() {
  source?.close();
  source = null;
  const pages = [...new Set([...tabs.values()].map((tab) => tab.page))].slice(0, 12);
  if (pages.length === 0) return;
  const address = [...tabs.values()][0].stream;
  source = new EventSource(address + "?" + pages.map((page) => "of=" + encodeURIComponent(page)).join("&"));
  source.addEventListener("open", () => tell({kind: "open"}));
  source.addEventListener("fragment", (event) => {
    const fragment = JSON.parse(event.data);
    tell({kind: "fragment", fragment}, fragment.page);
  });
  source.addEventListener("sign", (event) => {
    const sign = JSON.parse(event.data);
    tell({kind: "sign", text: sign.text}, sign.page);
  });
  source.addEventListener("error", () => {
    tell({kind: "error"});
    // A server that refuses ends the stream for good; it is asked again, slowly.
    if (source?.readyState === EventSource.CLOSED) connectIn(5000);
  });
}

// Tabs that come together are served by one new stream.
function connectIn(milliseconds) {
  clearTimeout(waits);
  waits = setTimeout(connect, milliseconds);
}

onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = ({data}) => {
    if (data.kind === "show") {
      tabs.set(port, {page: data.page, stream: data.stream, seen: Date.now()});
      connectIn(50);
    } else if (data.kind === "here") {
      const tab = tabs.get(port);
      if (tab) tab.seen = Date.now();
    } else if (tabs.delete(port)) {
      connectIn(200);
    }
  };
};

// A tab that was killed does not say that it leaves.
setInterval(() => {
  for (const [port, tab] of tabs) if (Date.now() - tab.seen > 60000 && tabs.delete(port)) connectIn(200);
}, 10000);
