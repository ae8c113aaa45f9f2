// Node 18 has Web Crypto, and Next.js makes it global there.
import { webcrypto } from 'node:crypto';

Object.defineProperty(globalThis, 'crypto', { configurable: true, value: webcrypto });
