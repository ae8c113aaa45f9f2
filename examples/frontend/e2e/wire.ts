/**
 * What the servers send, read from the wire by a proxy.  The browser cannot be asked for it: it keeps no body
 * of a redirect or of a prefetch that was not used, and of an answer that was still under way when its page
 * was left for another site, Playwright waits for the body until the page is closed.
 *
 * The proxy is the network too: it keeps a request for as long as a test wants, and loses answers.
 */

import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Answer {
  url: string;
  /** Without Set-Cookie, which no script can read. */
  headers: string;
  body: string;
}

/** What becomes of the next request of its kind. */
export interface Passage {
  /** The request has come to the proxy. */
  arrived: Promise<void>;
  /** Let it go on to the server. */
  release: () => void;
  /** The status that the server has answered with. */
  answered: Promise<number>;
}

export interface Wire {
  /** For the option `proxy` of a browser context; <-loopback>: for the own machine too. */
  proxy: { server: string; bypass: string };
  answers: Answer[];
  /** How many answers are still under way. */
  open: () => number;
  /** Keep the next such request from the server until it is released. */
  hold: (method: string, path: string) => Passage;
  /** Lose the answer to the next such request, and with it the network. */
  lose: (method: string, path: string) => Passage;
  /** The network is back. */
  mend: () => void;
  close: () => void;
}

interface Plan {
  method: string;
  path: string;
  isLost: boolean;
  arrive: () => void;
  released: Promise<void>;
  answer: (status: number) => void;
}

export async function openWire(): Promise<Wire> {
  const answers: Answer[] = [];
  const plans: Plan[] = [];
  let open = 0;
  let isCut = false;

  function plan(method: string, path: string, isLost: boolean): Passage {
    let arrive: () => void = () => undefined;
    let release: () => void = () => undefined;
    let answer: (status: number) => void = () => undefined;
    const arrived = new Promise<void>((resolve) => (arrive = resolve));
    const released = new Promise<void>((resolve) => (release = resolve));
    const answered = new Promise<number>((resolve) => (answer = resolve));
    plans.push({ method, path, isLost, arrive, released, answer });
    if (isLost) release();
    return { arrived, release, answered };
  }

  /** The plan for a request, which is for one only. */
  function take(method: string | undefined, url: string): Plan | undefined {
    const at = plans.findIndex((plan) => plan.method === method && plan.path === new URL(url).pathname);
    return at < 0 ? undefined : plans.splice(at, 1)[0];
  }

  const server = createServer((incoming, outgoing) => {
    if (isCut) {
      outgoing.destroy();
      return;
    }
    const planned = take(incoming.method, incoming.url ?? '');
    planned?.arrive();
    void (planned?.released ?? Promise.resolve()).then(() => {
      pass(incoming, outgoing, planned);
    });
  });

  function pass(incoming: IncomingMessage, outgoing: ServerResponse, planned?: Plan): void {
    // The browser may have given up while its request was kept.
    if (outgoing.destroyed) return;
    const { method, url = '' } = incoming;
    const chunks: Buffer[] = [];
    open++;
    // Not compressed, as it is read here; on a connection of its own, which the server cannot have closed meanwhile.
    const plain = { ...incoming.headers, 'accept-encoding': 'identity', connection: 'close' };
    const onward = request(url, { method, headers: plain, agent: false }, (answer) => {
      const status = answer.statusCode ?? 502;
      if (planned?.isLost) {
        isCut = true;
        outgoing.destroy();
      }
      planned?.answer(status);
      if (outgoing.destroyed) return;
      outgoing.writeHead(status, answer.rawHeaders);
      outgoing.once('close', () => {
        const headers = JSON.stringify({ ...answer.headers, 'set-cookie': undefined });
        answers.push({ url, headers, body: Buffer.concat(chunks).toString() });
      });
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.pipe(outgoing);
      answer.on('error', () => outgoing.destroy());
    });
    onward.on('error', () => outgoing.destroy());
    outgoing.once('close', () => {
      open--;
      onward.destroy();
    });
    incoming.pipe(onward);
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    proxy: { server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bypass: '<-loopback>' },
    answers,
    open: () => open,
    hold: (method, path) => plan(method, path, false),
    lose: (method, path) => plan(method, path, true),
    mend: () => {
      isCut = false;
    },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
