/**
 * What is in front of the example in production: a server with a certificate,
 * which passes requests on to Next.js, and those for another host to Django.
 * It keeps a record, as browsers register and refresh devices where neither
 * pages nor Playwright see it, and it can be away.
 */

import { chromium, type Browser, type BrowserServer } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:https';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Passed {
  method: string;
  /** Host and path, without the query. */
  url: string;
  /** 0 while it is under way. */
  status: number;
  headers: NodeJS.Dict<string | string[]>;
}

export interface Front {
  passed: Passed[];
  /** How many requests have been answered with that status. */
  count: (method: string, path: string, status?: number) => number;
  /** No connection gets through, and none stays. */
  cut: () => void;
  mend: () => void;
  /** A browser that trusts the certificate, and can bind sessions if it is to. */
  launch: (binds: boolean) => Promise<Browser>;
  /** Send a signal to all processes of a browser that was launched here. */
  signal: (browser: Browser, signal: NodeJS.Signals) => void;
  close: () => Promise<void>;
}

/** Browsers look up no name below it, and a certificate error would switch the binding off. */
const DOMAIN = 'example.test';
const FEATURES = ['DeviceBoundSessions', 'EnableBoundSessionCredentialsSoftwareKeysForManualTesting'];

/** A certificate, and a home directory whose browsers trust it. */
function makeCertificate(home: string): { key: Buffer; cert: Buffer } {
  const path = (name: string) => join(home, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  writeFileSync(path('names'), `subjectAltName=DNS:${DOMAIN},DNS:*.${DOMAIN}\n`);
  openssl('req', '-x509', ...key, '-keyout', path('ca.key'), '-out', path('ca.crt'), '-days', '2', '-subj', '/CN=Tests');
  openssl('req', ...key, '-keyout', path('key'), '-out', path('csr'), '-subj', `/CN=${DOMAIN}`);
  const authority = ['-CA', path('ca.crt'), '-CAkey', path('ca.key'), '-CAcreateserial'];
  openssl('x509', '-req', '-in', path('csr'), ...authority, '-out', path('crt'), '-days', '2', '-extfile', path('names'));
  const store = path('.pki/nssdb');
  mkdirSync(store, { recursive: true });
  const certutil = (...args: string[]) => execFileSync('certutil', ['-d', `sql:${store}`, ...args], { stdio: 'pipe' });
  certutil('-N', '--empty-password');
  certutil('-A', '-t', 'C,,', '-n', 'tests', '-i', path('ca.crt'));
  return { key: readFileSync(path('key')), cert: readFileSync(path('crt')) };
}

/**
 * @param origin what browsers ask for
 * @param servers where requests go, by the first label of the host
 */
export async function openFront(origin: string, servers: Record<string, string>): Promise<Front> {
  const home = mkdtempSync(join(tmpdir(), 'front-'));
  const { key, cert } = makeCertificate(home);
  const passed: Passed[] = [];
  const sockets = new Set<Socket>();
  const browsers = new Map<Browser, BrowserServer>();
  let isCut = false;

  const server = createServer({ key, cert }, (incoming, outgoing) => {
    const { method = '', headers, url = '' } = incoming;
    const host = headers.host ?? '';
    const target = servers[host.split('.')[0] ?? ''];
    if (!target) {
      outgoing.destroy();
      return;
    }
    const entry: Passed = { method, url: `${host.replace(/:.*/, '')}${url.replace(/\?.*/, '')}`, status: 0, headers };
    passed.push(entry);
    const added = { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': 'https', connection: 'close' };
    const onward = request(target + url, { method, headers: { ...headers, ...added }, agent: false }, (answer) => {
      entry.status = answer.statusCode ?? 0;
      outgoing.writeHead(entry.status, answer.rawHeaders.filter((_, at, all) => !/^connection$/i.test(all[at - (at % 2)] ?? '')));
      answer.pipe(outgoing);
    });
    onward.on('error', () => outgoing.destroy());
    outgoing.once('close', () => onward.destroy());
    incoming.pipe(onward);
  });
  server.on('connection', (socket: Socket) => {
    if (isCut) socket.destroy();
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(Number(new URL(origin).port), '127.0.0.1', resolve));

  const options = (binds: boolean) => ({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    env: { ...process.env, HOME: home } as Record<string, string>,
    args: [
      '--no-sandbox',
      '--disable-dev-shm-usage',
      '--disable-gpu',
      `--${binds ? 'enable' : 'disable'}-features=${FEATURES.join(',')}`,
      `--host-resolver-rules=MAP *.${DOMAIN} 127.0.0.1`,
    ],
  });
  return {
    passed,
    count: (method, path, status = 200) =>
      passed.filter((entry) => entry.method === method && entry.url.endsWith(path) && entry.status === status).length,
    cut: () => {
      isCut = true;
      sockets.forEach((socket) => socket.destroy());
    },
    mend: () => {
      isCut = false;
    },
    launch: async (binds) => {
      const running = await chromium.launchServer(options(binds));
      const browser = await chromium.connect(running.wsEndpoint());
      browsers.set(browser, running);
      return browser;
    },
    signal: (browser, signal) => {
      const pid = browsers.get(browser)?.process().pid;
      if (pid === undefined) throw new Error('this browser was not launched here');
      // It leads the group of all its processes.
      process.kill(-pid, signal);
    },
    close: async () => {
      await Promise.all([...browsers.values()].map((running) => running.close()));
      server.close();
      sockets.forEach((socket) => socket.destroy());
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
