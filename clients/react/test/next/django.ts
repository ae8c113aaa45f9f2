/** A backend that listens on loopback, notes what reaches it and answers as told. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Seen {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
}

export class Django {
  seen: Seen[] = [];
  reply: (response: ServerResponse) => void = () => undefined;
  /** Connections that have been opened. */
  connections = 0;
  url = '';
  private server: Server;

  constructor() {
    // Shorter than the client keeps a connection, as gunicorn's is.
    this.server = createServer({ keepAliveTimeout: 1 },(request, response) => {
      let body = '';
      request.on('data', (part: Buffer) => (body += part.toString()));
      request.on('end', () => {
        const { method = '', url = '', headers } = request;
        this.seen.push({ method, path: url, headers, body });
        this.reply(response);
      });
    });
    this.server.on('connection', () => this.connections++);
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.server.listen(0, '127.0.0.1', resolve);
    });
    this.url = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  answers(status: number, body?: unknown, headers: Record<string, string | string[]> = {}): void {
    this.reply = (response) => {
      response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
      response.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
    };
  }
}
