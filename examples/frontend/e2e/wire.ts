/**
 * What the servers send, read from the wire by a proxy.  The browser cannot be asked for it: it keeps no body
 * of a redirect or of a prefetch that was not used, and of an answer that was still under way when its page
 * was left for another site, Playwright waits for the body until the page is closed.
 */

import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Answer {
  url: string;
  /** Without Set-Cookie, which no script can read. */
  headers: string;
  body: string;
}

export interface Wire {
  /** For the option `proxy` of a browser context; <-loopback>: for the own machine too. */
  proxy: { server: string; bypass: string };
  answers: Answer[];
  /** How many answers are still under way. */
  open: () => number;
  close: () => void;
}

export async function openWire(): Promise<Wire> {
  const answers: Answer[] = [];
  let open = 0;
  const server = createServer((incoming, outgoing) => {
    const { method, url = '' } = incoming;
    const chunks: Buffer[] = [];
    open++;
    // Not compressed, as it is read here.
    const plain = { ...incoming.headers, 'accept-encoding': 'identity' };
    const onward = request(url, { method, headers: plain }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
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
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    proxy: { server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bypass: '<-loopback>' },
    answers,
    open: () => open,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
