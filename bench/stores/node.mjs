// Sides of bench/stores.sh on Node: this extension by pg, connect-pg-simple, and better-auth.
//
//	node node.mjs ours|connect-pg-simple|better-auth DATA
//
// DATA is a file with a session's data.  Commands and answers are those that compare.py describes.
// Connections are those of a pool, and as many calls are under way.  Every side has the same pool,
// which prepares each statement once for a connection.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import connectPgSimple from "connect-pg-simple";
import session from "express-session";
import pg from "pg";

const DEVICES = 3; // sessions of a user who signs out everywhere
const LOGINS = 10_000; // users who log in while it is measured
const DAY = 86_400_000;
const IP = "192.0.2.1";
const USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

const [name, dataFile] = process.argv.slice(2);
const template = readFileSync(dataFile, "utf8").trim();

function die(message) {
  process.stdout.write(`error ${message}\n`, () => process.exit(1));
  throw new Error(message);
}

const names = new Map();

class PreparingClient extends pg.Client {
  query(text, values, callback) {
    if (typeof text !== "string" || !values?.length) return super.query(text, values, callback);
    if (!names.has(text)) names.set(text, `s${names.size}`);
    return super.query({ name: names.get(text), text, values: [...values] }, callback);
  }
}

const pool = new pg.Pool({
  Client: PreparingClient,
  host: process.env.BENCH_PGHOST,
  database: "app",
  user: "web",
  max: 32,
  idleTimeoutMillis: 0,
});

function userName(kind, number) {
  return `auth0|${kind}${String(number).padStart(8, "0")}`;
}

function dataOf(number) {
  return JSON.parse(template.replaceAll("00000000", String(number).padStart(8, "0")));
}

// What a side can do, with tokens as the cookie has them.  get() is undefined without a session.
const sides = {
  ours() {
    async function value(text, values) {
      return (await pool.query(text, values)).rows[0].value;
    }
    function digest(token) {
      const raw = Buffer.from(token.slice(4), "base64url");
      const hash = createHash("sha256").update("session_manager token v1").update(raw).digest();
      return `sd1_${Buffer.concat([raw.subarray(0, 16), hash]).toString("base64url")}`;
    }
    return {
      create: (user, data) =>
        value("SELECT session_token AS value FROM session_create($1, $2, ip => $3, user_agent => $4)", [
          user,
          data,
          IP,
          USER_AGENT,
        ]),
      async get(token) {
        const found = await value("SELECT session_get_json($1) AS value", [digest(token)]);
        return found ? { user: found.user_id, data: found.data } : undefined;
      },
      async refresh(token) {
        const status = await value("SELECT status AS value FROM session_refresh($1)", [digest(token)]);
        if (status !== "extended") die(`refresh: ${status}`);
      },
      update: (token, patch) =>
        value("SELECT version AS value FROM session_update($1, $2)", [digest(token), patch]),
      async revoke(token) {
        if (!(await value("SELECT session_invalidate($1) AS value", [digest(token)]))) die("revoke: no such session");
      },
      revokeAll: (user) => value("SELECT session_invalidate_all($1) AS value", [user]),
    };
  },

  // As express-session uses it: a request loads the session, a change saves all of it.
  async "connect-pg-simple"() {
    const Store = connectPgSimple(session);
    const store = new Store({ pool, tableName: "express_session", createTableIfMissing: true, pruneSessionInterval: false });
    const get = promisify(store.get.bind(store));
    const set = promisify(store.set.bind(store));
    const touch = promisify(store.touch.bind(store));
    const destroy = promisify(store.destroy.bind(store));
    const cookie = () => ({
      originalMaxAge: DAY,
      expires: new Date(Date.now() + DAY),
      httpOnly: true,
      secure: true,
      path: "/",
    });
    await get("nobody's"); // makes the table
    // The package has no look-up by user.
    await pool.query(`CREATE INDEX IF NOT EXISTS express_session_user ON express_session ((sess ->> 'user'))`);
    return {
      async create(user, data) {
        const token = randomBytes(24).toString("base64url");
        await set(token, { cookie: cookie(), user, data, ip: IP, userAgent: USER_AGENT });
        return token;
      },
      async get(token) {
        const found = await get(token);
        return found ? { user: found.user, data: found.data } : undefined;
      },
      refresh: (token) => touch(token, { cookie: cookie() }),
      async update(token, patch) {
        const found = await get(token);
        Object.assign(found.data, patch);
        await set(token, found);
      },
      revoke: (token) => destroy(token),
      revokeAll: async (user) =>
        (await pool.query(`DELETE FROM express_session WHERE sess ->> 'user' = $1`, [user])).rowCount,
    };
  },

  // Its store, without HTTP and the signature of the cookie.  A look-up loads the user too.
  async "better-auth"() {
    const options = {
      database: pool,
      secret: randomBytes(32).toString("hex"),
      baseURL: "https://app.example.com",
      logger: { disabled: true },
      telemetry: { enabled: false },
      session: { additionalFields: { data: { type: "string", required: false } } },
      advanced: { database: { joins: true } }, // one query in the place of two
    };
    await (await getMigrations(options)).runMigrations();
    await pool.query(
      `INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
       SELECT id, 'Zoë Müller', id || '@example.com', true, now(), now()
       FROM (SELECT 'auth0|' || kind || lpad(n::text, 8, '0') AS id
         FROM unnest(ARRAY['a', 'b', 'c', 'd']) kind, generate_series(0, $1::int - 1) n) ids
       ON CONFLICT DO NOTHING`,
      [LOGINS],
    );
    const { rows } = await pool.query(
      `SELECT FROM pg_indexes WHERE tablename = 'session' AND indexdef LIKE '%("userId")%'`,
    );
    if (rows.length === 0) await pool.query(`CREATE INDEX ON "session" ("userId")`);
    const { internalAdapter } = await betterAuth(options).$context;
    return {
      async create(user, data) {
        const made = await internalAdapter.createSession(user, false, {
          data: JSON.stringify(data),
          ipAddress: IP,
          userAgent: USER_AGENT,
        });
        return made.token;
      },
      async get(token) {
        const found = await internalAdapter.findSession(token);
        if (!found || found.session.expiresAt < new Date()) return undefined;
        return { user: found.user.id, data: JSON.parse(found.session.data) };
      },
      refresh: (token) =>
        internalAdapter.updateSession(token, { expiresAt: new Date(Date.now() + 7 * DAY), updatedAt: new Date() }),
      async update(token, patch) {
        const found = await internalAdapter.findSession(token);
        const data = { ...JSON.parse(found.session.data), ...patch };
        await internalAdapter.updateSession(token, { data: JSON.stringify(data), updatedAt: new Date() });
      },
      revoke: (token) => internalAdapter.deleteSession(token),
      async revokeAll(user) {
        await internalAdapter.deleteUserSessions(user);
        return DEVICES; // it does not tell
      },
    };
  },
};

const side = await sides[name]();
const sessions = [];
const extra = []; // of each connection: sessions that it has made itself
let stock = 0;

async function createFor(kind, number) {
  const user = userName(kind, number);
  return { user, token: await side.create(user, dataOf(number)) };
}

function random(below) {
  return Math.floor(Math.random() * below);
}

// A session of those that belong to a connection
function pick(connection, connections) {
  return sessions[connection + connections * random(Math.floor(sessions.length / connections))];
}

async function get(session) {
  const found = await side.get(session.token);
  if (found?.user !== session.user) die(`get: ${found?.user} in the place of ${session.user}`);
}

const operations = {
  get: (c, n) => get(pick(c, n)),
  create: () => createFor("d", random(LOGINS)),
  refresh: (c, n) => side.refresh(pick(c, n).token),
  async revoke_all(c, n, number) {
    const ended = Number(await side.revokeAll(userName("b", number)));
    if (ended !== DEVICES) die(`revoke_all: ${ended} sessions`);
  },
  // 95 % get, 2 % create, 1 % each of refresh, update and revoke
  async mixed(c, n) {
    const chance = random(100);
    extra[c] ??= [];
    if (chance < 2) extra[c].push(await operations.create());
    else if (chance === 2) await operations.refresh(c, n);
    else if (chance === 3) await side.update(pick(c, n).token, { seen: 10_000_000 + random(80_000_000) });
    else if (chance === 4 && extra[c].length > 0) await side.revoke(extra[c].pop().token);
    else await operations.get(c, n);
  },
};

async function check() {
  const made = [await createFor("c", 1), await createFor("c", 1), await createFor("c", 1)];
  for (const one of made) {
    await get(one);
    const { data } = await side.get(one.token);
    if (data.profile.email !== "user00000001@example.com") die("check: a new session has other data");
  }
  await side.refresh(made[0].token);
  await side.update(made[0].token, { seen: 12345678 });
  const { data } = await side.get(made[0].token);
  if (data.seen !== 12345678 || data.plan !== "team") die("check: an update has not been made");
  await side.revoke(made[0].token);
  if (await side.get(made[0].token)) die("check: a revocation has not been made");
  await get(made[1]);
  await side.revokeAll(made[1].user);
  if ((await side.get(made[1].token)) || (await side.get(made[2].token))) {
    die("check: not all sessions have been revoked");
  }
}

const commands = {
  async connect(count) {
    const clients = await Promise.all(Array.from({ length: count }, () => pool.connect()));
    for (const client of clients) client.release();
    return process.pid;
  },
  async load(count) {
    while (sessions.length < count) sessions.push(await createFor("a", sessions.length));
    return "ok";
  },
  async check() {
    await check();
    return "ok";
  },
  async stock(users) {
    for (stock = 0; stock < users; stock++) {
      await Promise.all(Array.from({ length: DEVICES }, () => createFor("b", stock)));
    }
    return "ok";
  },
  async run(operation, connections, milliseconds) {
    const took = [];
    const start = performance.now();
    const once = operation === "revoke_all";
    async function connection(c) {
      let begin = performance.now();
      for (let i = c; once ? i < stock : begin < start + milliseconds; i += connections) {
        await operations[operation](c, connections, i);
        const end = performance.now();
        took.push(Math.round((end - begin) * 1e6));
        begin = end;
      }
    }
    await Promise.all(Array.from({ length: connections }, (_, c) => connection(c)));
    const wall = Math.round((performance.now() - start) * 1e6);
    return [wall, ...took].join(" ");
  },
};

process.on("unhandledRejection", (error) => die(String(error?.message ?? error).replaceAll("\n", " ")));
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...parameters] = line.split(" ");
  try {
    const numbers = parameters.map((text) => (/^\d+$/.test(text) ? Number(text) : text));
    process.stdout.write(`${await commands[command](...numbers)}\n`);
  } catch (error) {
    die(String(error?.message ?? error).replaceAll("\n", " "));
  }
}
process.exit(0);
