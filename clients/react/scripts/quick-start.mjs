/**
 * Do what the quick start in docs/react.md says, in a new project for each
 * combination, and use the result in a browser, against the example's backend:
 *
 *     scripts/example.sh node clients/react/scripts/quick-start.mjs [NEXT REACT BUNDLER]
 *
 * TARBALL names a tarball of the package to install in place of one of the source.  Without arguments it takes every combination.  Prints a line "ok" or "not ok" for each finding.
 */
import { spawn, execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';

const ROOT = resolve(import.meta.dirname, '../../..');
const { EXAMPLE_URL, BACKEND_URL, ISSUER_URL, TARBALL, CHROMIUM = '/usr/bin/chromium-headless-shell' } = process.env;
const USER = 'auth0|ada';
const run = promisify(execFile);

const combinations = ['15', '16'].flatMap((next) =>
  ['18', '19'].flatMap((react) => ['turbopack', 'webpack'].map((bundler) => ({ next, react, bundler }))),
);
const wanted = process.argv.slice(2).join(' ');
const chosen = combinations.filter((one) => !wanted || wanted === Object.values(one).join(' '));
if (!chosen.length) throw new Error(`there is no combination ${wanted}`);

const RESOLVED = `
import { useSession } from '@session-manager/react';
import { getServerSession } from '@session-manager/react/next';
// @ts-expect-error: without types both would be any
useSession().nothing;
// @ts-expect-error
void getServerSession().nothing;
`;

// The example has a browser's driver installed, which is not the package's business.
const { chromium } = createRequire(join(ROOT, 'examples/frontend/package.json'))('@playwright/test');

function check(what, good, detail) {
  console.log(`${good ? 'ok' : 'not ok'} - quick start: ${what}`);
  if (!good) {
    process.exitCode = 1;
    console.log(String(detail).replace(/^/gm, '# '));
  }
  return good;
}

/** Run a command in a directory; its output, or an error that has it. */
async function shell(command, cwd) {
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', npm_config_prefer_offline: 'true', npm_config_audit: 'false' };
  try {
    const { stdout, stderr } = await run('sh', ['-ec', command], { cwd, env, maxBuffer: 1 << 26 });
    return stdout + stderr;
  } catch (error) {
    throw new Error(`${command}\n${error.stdout}${error.stderr}`, { cause: error });
  }
}

/** The blocks of the page's section. */
async function quickStart(...options) {
  const { stdout } = await run(join(ROOT, 'scripts/doc_blocks.py'), [join(ROOT, 'docs/react.md'), 'Quick start', ...options]);
  return stdout;
}

/** What `create-next-app` leaves, as far as it matters here. */
async function newProject(directory, { next, react }) {
  const packageJson = {
    name: 'quick-start',
    private: true,
    dependencies: { next, react, 'react-dom': react },
    devDependencies: { '@types/node': '20', '@types/react': react, '@types/react-dom': react, typescript: '5' },
  };
  await writeFile(join(directory, 'package.json'), JSON.stringify(packageJson));
}

/** The issuer's authorization code flow, for a user who needs no password. */
async function accessToken() {
  const verifier = randomBytes(36).toString('base64url');
  const client = { client_id: 'example-web', redirect_uri: `${EXAMPLE_URL}/auth/callback` };
  const query = new URLSearchParams({
    ...client,
    response_type: 'code',
    scope: 'openid profile',
    state: 's',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    user: USER,
  });
  const redirect = await fetch(`${ISSUER_URL}/authorize?${query}`, { redirect: 'manual' });
  const code = new URL(redirect.headers.get('location')).searchParams.get('code');
  const body = new URLSearchParams({ ...client, grant_type: 'authorization_code', code, code_verifier: verifier });
  const answer = await fetch(`${ISSUER_URL}/token`, { method: 'POST', body });
  return (await answer.json()).access_token;
}

const answers = () =>
  fetch(`${EXAMPLE_URL}/login`).then(
    () => true,
    () => false,
  );

/** Start the application and wait until it answers; a function that ends it. */
async function start(directory) {
  const { hostname, port } = new URL(EXAMPLE_URL);
  if (await answers()) throw new Error(`something else answers at ${EXAMPLE_URL}`);
  const log = [];
  const server = spawn(process.execPath, ['node_modules/next/dist/bin/next', 'start', '-H', hostname, '-p', port], {
    cwd: directory,
    env: { ...process.env, SESSION_BACKEND_URL: BACKEND_URL, SESSION_BACKEND_TIMEOUT: '20000' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (text) => log.push(text));
  const ended = new Promise((done) => server.once('close', done));
  const kill = () => server.kill();
  process.on('exit', kill);
  const stop = async () => {
    kill();
    await ended;
    process.off('exit', kill);
  };
  for (let waits = 0; waits < 600 && server.exitCode === null; waits++) {
    if ((await answers()) && server.exitCode === null) return stop;
    await new Promise((done) => setTimeout(done, 100));
  }
  await stop();
  throw new Error(`next start does not answer\n${log.join('')}`);
}

/** Use the application as its reader would. */
async function tryOut(name) {
  const anonymous = await fetch(`${EXAMPLE_URL}/api/session`);
  const verdict = await anonymous.text();
  check(`${name}: without a cookie there is no session`, anonymous.status === 200 && verdict === '{"session":null}', verdict);

  // The page would send them there without the query.
  const answer = await fetch(`${EXAMPLE_URL}/account?from=mail`, { redirect: 'manual' });
  const location = answer.headers.get('location') ?? '';
  check(`${name}: the proxy asks to sign in`, location.endsWith('/login?returnTo=%2Faccount%3Ffrom%3Dmail'), location);

  const args = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'];
  const browser = await chromium.launch({ executablePath: CHROMIUM, args });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    const problems = [];
    page.on('pageerror', (error) => problems.push(error));
    await page.goto(`${EXAMPLE_URL}/account`);
    // What is written before React is at work is lost.
    const form = await page.locator('form').elementHandle();
    await page.waitForFunction((element) => Object.keys(element).some((key) => key.startsWith('__reactProps')), form);
    await page.getByLabel('Access token').fill(await accessToken());
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL('**/account');
    await page.getByRole('button', { name: `Sign out ${USER}` }).waitFor();
    const shown = (await page.getByText('Session ').innerText()).replace('Session ', '');
    const current = await (await page.request.get(`${EXAMPLE_URL}/api/session`)).json();
    check(`${name}: signed in, the page shows the session`, shown === current.session.id, `${shown}\n${JSON.stringify(current)}`);

    const html = await (await page.request.get(`${EXAMPLE_URL}/account`)).text();
    check(`${name}: and is rendered with it on the server`, html.includes(shown) && html.includes(USER), html);

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.waitForURL('**/login');
    const after = await (await page.request.get(`${EXAMPLE_URL}/api/session`)).text();
    check(`${name}: signed out, there is none`, after === '{"session":null}', after);
    check(`${name}: no error in the browser`, problems.length === 0, problems.join('\n'));
  } finally {
    await browser.close();
  }
}

async function walk(combination, work) {
  const { next, react, bundler } = combination;
  const name = `Next.js ${next}, React ${react}, ${bundler}`;
  const directory = join(work, 'app');
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory);
  await newProject(directory, combination);

  for (const { file, text } of JSON.parse(await quickStart())) {
    // One of them is for another version.
    if (!file || file === (next === '15' ? 'proxy.ts' : 'middleware.ts')) continue;
    await mkdir(dirname(join(directory, file)), { recursive: true });
    await writeFile(join(directory, file), text);
  }
  const commands = (await quickStart('--commands')).trim().split('\n');
  const { length } = commands;
  if (TARBALL) await cp(TARBALL, join(directory, basename(TARBALL)));
  const wanted = TARBALL ? commands.filter((command) => command.startsWith('npm install ')) : commands;
  await shell(wanted.join('\n'), directory);
  const { dependencies } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8'));
  const source = dependencies['@session-manager/react'];
  check(`${name}: installed from a tarball by ${length} commands`, source.endsWith('.tgz') && length < 5, source);

  const flag = { '15 turbopack': '--turbopack', '16 webpack': '--webpack' }[`${next} ${bundler}`] ?? '';
  const output = await shell(`npx next build ${flag}`, directory);
  const version = /Next\.js (\d+)\.[\d.]+.*/.exec(output);
  const isTurbopack = /turbopack/i.test(version?.[0] ?? '');
  // As the name of a file is that of the version before.
  const isOld = /file convention is deprecated/.test(output);
  const isMeant = version?.[1] === next && isTurbopack === (bundler === 'turbopack') && !isOld;
  check(`${name}: next build`, isMeant, output);

  // As Node.js resolves them; the build has done it as its tsconfig.json says, which is "node" before Next.js 16.
  await writeFile(join(directory, 'resolved.mts'), RESOLVED);
  const tsc = 'npx tsc --noEmit --strict --skipLibCheck --target es2022 --module node16 resolved.mts';
  const types = await shell(tsc, directory).catch(String);
  check(`${name}: types are found`, types === '', types);

  const stop = await start(directory);
  try {
    await tryOut(name);
  } finally {
    await stop();
  }
}

const work = await mkdtemp(join(tmpdir(), 'quick-start-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
for (const [signal, status] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 143 })) {
  process.on(signal, () => process.exit(status));
}

// A clean checkout beside the application, as the page has it.
if (!TARBALL) {
  await cp(join(ROOT, 'clients/react'), join(work, 'session_manager/clients/react'), {
    recursive: true,
    filter: (path) => !/\/(node_modules|dist)$/.test(path),
  });
  await cp(join(ROOT, 'LICENSE'), join(work, 'session_manager/LICENSE'));
}
for (const combination of chosen) {
  try {
    await walk(combination, work);
  } catch (error) {
    check(Object.values(combination).join(' '), false, error.stack);
  }
}
