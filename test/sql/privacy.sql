--
-- session_export and session_erase: what is held about a person
--
SET TimeZone = 'UTC';
SELECT session_id, session_token FROM session_create('alice', '{"plan": "pro", "name": "Zoë"}', ip => '192.0.2.1', user_agent => 'one',
	tenant_id => 'acme', auth => '{"amr": ["pwd"]}') \gset a_
SELECT session_id, session_token FROM session_create('alice', '{"n": 2}') \gset a2_
SELECT session_invalidate(:'a2_session_token', 'lost phone');
SELECT session_id, session_token FROM session_create('bob', '{"secret": "of bob"}') \gset b_

-- JSON: every session with its data, every event, nothing that logs in
SELECT session_export('alice') AS export \gset
SELECT key, jsonb_typeof(value) FROM jsonb_each(:'export') ORDER BY key COLLATE "C";
SELECT s ->> 'session_id' = :'a_session_id' AS first, s -> 'data' AS data, s -> 'auth' AS auth, s ->> 'tenant_id' AS tenant, s ->> 'ip' AS ip,
	s ->> 'user_agent' AS agent, s ->> 'revoked_reason' AS reason
FROM jsonb_array_elements(:'export'::jsonb -> 'sessions') AS s ORDER BY s ->> 'created_at';
SELECT string_agg(key, ' ' ORDER BY key COLLATE "C") FROM jsonb_object_keys(:'export'::jsonb -> 'sessions' -> 0) AS key;
SELECT e ->> 'event' AS event, e ->> 'ip' AS ip, e -> 'detail' AS detail
FROM jsonb_array_elements(:'export'::jsonb -> 'events') AS e ORDER BY (e ->> 'event_id')::bigint;
SELECT string_agg(key, ' ' ORDER BY key COLLATE "C") FROM jsonb_object_keys(:'export'::jsonb -> 'events' -> 0) AS key;
SELECT :'export' ~ 's[md]1_' AS token, :'export' ~ 'verifier|sealed' AS internals, :'export' ~ 'bob' AS others;

-- PGP: only the holder of the private key reads it.  A throw-away pair that
-- protects nothing but this test.
SELECT $$
-----BEGIN PGP PUBLIC KEY BLOCK-----

mQENBGsFT3IBCADT5TFea5ypiM3E9jyqSBf2efj4GshFHcbLmYaoEtRcBL2UH7F6
erAaHd1X6d6Q8ChuB5dJbfEa1GmSHXlCw6GFtM1HWCx4l/zlFIiVK8dx89IGOZoi
bn+ZP9vTa+h0btPO7xjEdhuWtlLcXkUtauClTInal/LiPUeTqKAkNu0IoA7L/jrp
SW+Nmr4VaT+i+p1hCKXzHyaTohAj9g0VQdif3yskvvYuehs7QLYoCvgdLvRn0sqI
2e0vY34SOIZHVnf38w+oRfkLyMw16Fl3+uEA0iokS048apg03smmTDKRqTb0PGhs
i/ckaTet5C8iPe4Cu7MdUdEb/MzpHkIAi2DfABEBAAG0E1Nlc3Npb24gZXhwb3J0
IHRlc3SJAU4EEwEKADgWIQSoWmx3N18iSohBTqR9aCS0DM1ChQUCawVPcgIbAwUL
CQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRB9aCS0DM1Chae1B/9aE2f5OearIi4s
ccq3jRvMHAcLqsLF3ku1TdfjqKZhqF54kMMOydJLv7eBX4GeD2WsC92Gtro5VuRH
uz6ylHNf8C4brsN4zFBvzhYmoclkuMhW5AhqzLrOGQ2nAWhYg6g5RUeLeHpNNuI4
lrKOLJrs910CGS07DEdf2kGLRQZl/ThyqTUGf+97D+h3asWl5LwpgpGAISC5QZ0i
55nxRsOpSPlASWKmqFWtY9/0RcOUQutr5bBPPZ2ft9XHpvmEAIct9cGZV7+tVDGD
Rs1ax56C5+CluRGup0BpHE09j8vmid/95kKAdTFi+8pYYRdKDJkaPKXU01B3Hh5d
02fohevOuQENBGsFT3IBCADjw7yU/ZLDbdmDg5A4cT/CdNZosIIWldmLAK7ZRm94
fcmfT/FCP+HlfFS5OA98BVBwJ8l+g4nMLiJSXAkvGR/G42Lhw9EnRLc2VVSglvHd
iy4TgrkqWxfdE+Iq2RqPq8i0sEsJ4iSRPEaeZ4mUsB55Mto6FUN+V3oxh0DAXI1H
+55sPS8D3opQLF/aE7+RcW4/HRCHy2lS3lkqUc+zbOJJaq7FGGygoE34mSFuvIiz
tyN9QHNFzFH677fD/GDxmZqF/H1v7CKu/vwyIGiGm8XS8aat3bY45d7BGVjPtDlZ
U/hJydO+qxbvBdBDuYgKd9bndtsTZmC9pWHZhtzqwzY1ABEBAAGJATYEGAEKACAW
IQSoWmx3N18iSohBTqR9aCS0DM1ChQUCawVPcgIbDAAKCRB9aCS0DM1CheUuB/9k
kKwMIZc/N6aX5nxbCplIeljzPrHmFlWgRVQ6Vw5MPgzZWMt3LOyeY41t3NYMFXff
aCh1evfJvSiVk5xkegBleRo9GlMKSoyJkHTtM0lJ7CrnKEjd9w4R7xoy6vyhwR2v
IROBX0IP3hko1tQh/uC9HzYY2G5OhE3XJGmHWIMlV0NAqM/YmToAlDz+QlY3OTXK
+wNzTWqJOnt4wt+sXLDJnuOAxfrkyGUyBuF3QY/Ie7jzA+qEYgIJlR+L0i5t+psL
rFIHZiXTCQF8SOQpdjY/oLVMAIVv6IQKfakfFJ0e/0P3z7NDcgdlaz6TKTDT0Jcl
g1SaiTlTLYkskxfzo2A/
=HSnb
-----END PGP PUBLIC KEY BLOCK-----
$$ AS public_key,
$$
-----BEGIN PGP PRIVATE KEY BLOCK-----

lQOYBGsFT3IBCADT5TFea5ypiM3E9jyqSBf2efj4GshFHcbLmYaoEtRcBL2UH7F6
erAaHd1X6d6Q8ChuB5dJbfEa1GmSHXlCw6GFtM1HWCx4l/zlFIiVK8dx89IGOZoi
bn+ZP9vTa+h0btPO7xjEdhuWtlLcXkUtauClTInal/LiPUeTqKAkNu0IoA7L/jrp
SW+Nmr4VaT+i+p1hCKXzHyaTohAj9g0VQdif3yskvvYuehs7QLYoCvgdLvRn0sqI
2e0vY34SOIZHVnf38w+oRfkLyMw16Fl3+uEA0iokS048apg03smmTDKRqTb0PGhs
i/ckaTet5C8iPe4Cu7MdUdEb/MzpHkIAi2DfABEBAAEAB/wIfoO79b4Pe8OdQC5k
DcTMJXfqC494ryi6HlrsCj6HZnc/ugTa1JKSUXJ/OjRTr2o80u1pIlD2fYpdMvTv
92NWYU4+AcEH9TZ268ZNOIvju7LxJfD8WAf3GZITMnGx7S7CI7U59u7EhrrhSPQm
oxtYn64CXHH+SMJBnz0K2/Ak7CGX/cPm+zZrv2SkCsMf3pSuGfoWFFF54Rzg9tMK
OzQ6GK3p0UgFgPerZh+pZiIqlV/NMZmvqjcG9eKSpSqs5DpLFi3L8HCQQCl2uauw
Hlw54yd0txZzZDRHn4Bi/r+0I5LheJJBa9S4Ylc8MXkHYtfuG4/rryErabcOmb/A
fwV1BADYhPTunODkBJAfTkEP9T5ESA7aS1luVhzldwcduhiAyw+9z5nJwQBARSmf
qDxMKoF1WAKo32X149vw+Fm0GE/L69+35WuJ0Lwu22kSfbEETHepsRn8c9coXL7a
DWvoTqRyB6CLN22ZcXtCs1toivPlA5bfMVjXPqgODOITPlbQQwQA+ohixxXo/Ca5
FlTAbOBi4+NNOKPqmLsI6uAFyPlm6kaRfBAnDpDhqhLv9V3FU7VEqJDnDwIWXoDC
JNVs8YW2HfoApSLLtDwIwtCy+ruHwPlWv80H/L/8XeH840mC89L/JeiV+qspsCnv
Nkt9TfQd0FJky/CcyuixxkBghvQWATUD/2cz446+680Ccj8Yi1hKrCtaoyIlCvR0
60c8MHXORQF0C/KU6NgFfpob2vzVdeajD+B+EK7NWOMcprb3py9nGIU7xv9rKmQF
1r0JrQE10TYC4Oe0ACrSjoYG60EfxjYQQqFw82fbyPOz4Bpv440a9U0OeFfEO6N2
CIcue9SqD7sVRNS0E1Nlc3Npb24gZXhwb3J0IHRlc3SJAU4EEwEKADgWIQSoWmx3
N18iSohBTqR9aCS0DM1ChQUCawVPcgIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIX
gAAKCRB9aCS0DM1Chae1B/9aE2f5OearIi4sccq3jRvMHAcLqsLF3ku1TdfjqKZh
qF54kMMOydJLv7eBX4GeD2WsC92Gtro5VuRHuz6ylHNf8C4brsN4zFBvzhYmoclk
uMhW5AhqzLrOGQ2nAWhYg6g5RUeLeHpNNuI4lrKOLJrs910CGS07DEdf2kGLRQZl
/ThyqTUGf+97D+h3asWl5LwpgpGAISC5QZ0i55nxRsOpSPlASWKmqFWtY9/0RcOU
Qutr5bBPPZ2ft9XHpvmEAIct9cGZV7+tVDGDRs1ax56C5+CluRGup0BpHE09j8vm
id/95kKAdTFi+8pYYRdKDJkaPKXU01B3Hh5d02fohevOnQOYBGsFT3IBCADjw7yU
/ZLDbdmDg5A4cT/CdNZosIIWldmLAK7ZRm94fcmfT/FCP+HlfFS5OA98BVBwJ8l+
g4nMLiJSXAkvGR/G42Lhw9EnRLc2VVSglvHdiy4TgrkqWxfdE+Iq2RqPq8i0sEsJ
4iSRPEaeZ4mUsB55Mto6FUN+V3oxh0DAXI1H+55sPS8D3opQLF/aE7+RcW4/HRCH
y2lS3lkqUc+zbOJJaq7FGGygoE34mSFuvIiztyN9QHNFzFH677fD/GDxmZqF/H1v
7CKu/vwyIGiGm8XS8aat3bY45d7BGVjPtDlZU/hJydO+qxbvBdBDuYgKd9bndtsT
ZmC9pWHZhtzqwzY1ABEBAAEAB/42jmIThhGrghqB5/eZrXbKS1Y4SV8/rbEoHIfF
P5vfzrGG2Y0+gzLG11sr6oO6/0LfOoiHJ1bQc5SBCc6hW3FDIKBE17S3pTwFZbcZ
qE5S9M2amstjm+JBcEvSW6KDG3C95yRyP5rmtvtrYf2QggcqnMWs9/7sumNoja8y
5Hhq7yS5CsXmzV0uLS8fmliUy5Jbz/9GLdfvIdK9dY+5vzrNPWR4bDxmKBMWvCQL
zBnxGSJPM38FarmSIv4HPPQblj5Hs4Z0zh/lr//JWR9gYFJ1TnMrIGthHcOfISJt
NaGb0JSbOTu2Br0fHb3tMz8WjgASufOla8N1zBt6uZthhr6BBADudohn965Gi8i4
opbqIQ6atgMMW87954a/Xp3/Ik/eZt2BKNodPmLGO+ztUyJ+CWQal98TxphE4sLd
SrnnS9V+GHxWp6vqdVFDcA8SR0G28atbE1DQW6lMMEd5tbiebyqYOdOM6f4ZztbJ
Ro197k+wPRYGHhbp+dE+3jnE7C0UJQQA9IPJu+ZmJWB7T5kuGL0xfiAS0rlCNxaD
TsqfBO0bPrdEczcO5/xfwZ3Uswx/j+FtXX7XC+u4OeTtSGrLgQreZsJ3qzqXfNGr
SLvr0S8U3eW6ZjE9w6AYppO+Lcwg3xcirqL2lmzJo6F9lNGkxx7pUrenA71A991f
rZWe2/7xdNEEAPO4X2mAOVgDiKyh3MZ52CZLSgLIixTmrvZXrTf6o/JnsU3CnRIg
m9l7A0jSzUGGvl4NoqzKtIuQHC/iHKYaKhjnW2w9K0DRdbrtG9gEZ6W6SF54t/8S
tgQZEUSppgjdLwVK9Ngd3KN9LPF+4BmedUVlkcGfmsY0+AZcXSFsKiGfQXWJATYE
GAEKACAWIQSoWmx3N18iSohBTqR9aCS0DM1ChQUCawVPcgIbDAAKCRB9aCS0DM1C
heUuB/9kkKwMIZc/N6aX5nxbCplIeljzPrHmFlWgRVQ6Vw5MPgzZWMt3LOyeY41t
3NYMFXffaCh1evfJvSiVk5xkegBleRo9GlMKSoyJkHTtM0lJ7CrnKEjd9w4R7xoy
6vyhwR2vIROBX0IP3hko1tQh/uC9HzYY2G5OhE3XJGmHWIMlV0NAqM/YmToAlDz+
QlY3OTXK+wNzTWqJOnt4wt+sXLDJnuOAxfrkyGUyBuF3QY/Ie7jzA+qEYgIJlR+L
0i5t+psLrFIHZiXTCQF8SOQpdjY/oLVMAIVv6IQKfakfFJ0e/0P3z7NDcgdlaz6T
KTDT0Jclg1SaiTlTLYkskxfzo2A/
=XBDH
-----END PGP PRIVATE KEY BLOCK-----
$$ AS private_key \gset
SELECT session_export('alice', :'public_key') AS message \gset
SELECT :'message' LIKE E'-----BEGIN PGP MESSAGE-----\n%' AS armoured, :'message' ~ 'alice|plan' AS readable;
SELECT pgp_key_id(dearmor(:'message')) = pgp_key_id(dearmor(:'public_key')) AS for_this_key;
SELECT (pgp_pub_decrypt(dearmor(:'message'), dearmor(:'private_key'))::jsonb - 'exported_at')
	= (session_export('alice')::jsonb - 'exported_at') AS same_as_plain;
SELECT session_export('alice', :'public_key') <> :'message' AS fresh_each_time;
CALL test.error($$SELECT session_export('alice', 'no key')$$);
CALL test.error($$SELECT session_export('alice', '')$$);

-- Nobody
SELECT session_export('nobody')::jsonb -> 'sessions' AS sessions, session_export('nobody')::jsonb -> 'events' AS events;
CALL test.error('SELECT session_export(NULL)');
CALL test.error($$SELECT session_export('')$$);

-- Erasure: the sessions are gone, the events stay without the person.
SELECT count(*) AS events FROM session_events WHERE user_id = 'alice' \gset
BEGIN;
SELECT session_erase('alice');
ROLLBACK;
SELECT count(*) FROM session_get(:'a_session_token');
-- A rule that keeps the events as they are stops it as a whole.
CREATE RULE append_only AS ON UPDATE TO session_events DO INSTEAD NOTHING;
CALL test.error($$SELECT session_erase('alice')$$);
DROP RULE append_only ON session_events;
SELECT session_erase('alice');
SELECT count(*) FROM session_get(:'a_session_token');
SELECT count(*) FROM user_sessions WHERE user_id = 'alice';
SELECT count(*) FROM session_events WHERE user_id = 'alice';
SELECT count(*) - :events AS kept_but_anonymous FROM session_events
WHERE session_id IN (:'a_session_id', :'a2_session_id') AND event <> 'rejected' AND user_id IS NULL AND ip IS NULL AND user_agent IS NULL;
SELECT event, session_event_severity(event), session_id, user_id, ip, detail FROM session_events WHERE event = 'erased' ORDER BY event_id DESC LIMIT 1;
SELECT count(*) FROM session_events AS e WHERE e::text ~ 'alice';
SELECT session_export('alice')::jsonb -> 'sessions' AS sessions, session_export('alice')::jsonb -> 'events' AS events;
SELECT session_erase('alice'), session_erase('nobody');
SELECT data FROM session_get(:'b_session_token');
CALL test.error('SELECT session_erase(NULL)');
CALL test.error($$SELECT session_erase('')$$);
SELECT session_erase('bob');

-- What comes after a session has gone is the user's all the same.
SELECT session_id, session_token FROM session_create('late', ttl => '1 microsecond', ip => '192.0.2.1') \gset l_
SELECT sessions_deleted FROM session_cleanup();
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
SELECT count(*) FROM session_get(:'l_session_token', '192.0.2.99', 'late agent');
SELECT event, user_id, ip FROM session_history(:'l_session_id');
SELECT jsonb_array_length(session_export('late')::jsonb -> 'events') AS exported;
SELECT session_erase('late');
SELECT count(*) FROM session_events WHERE session_id = :'l_session_id' AND (user_id IS NOT NULL OR ip IS NOT NULL OR user_agent IS NOT NULL);
