--
-- Tokens in messages: masked before the server logs them, and so before the
-- client is told
--
LOAD 'session_manager';
\set VERBOSITY terse
\set secret 'sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v'
\set digest 'sd1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v'
SELECT :'secret'::integer;
SELECT :'digest'::integer;
-- several, beside one another, at either end, in any message
DO $$ BEGIN RAISE EXCEPTION 'sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v and sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vsd1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v'; END $$;
DO $$ BEGIN RAISE WARNING 'cookie=sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v;'; END $$;
-- proofs and challenges too
DO $$ BEGIN RAISE EXCEPTION 'sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v.sp1_AAAAAQZhdLHYsk1WQ-lkmTrtrUTnYkHvFYAw, sc1_AAAAAQZhdLHYsk1WQ-lkmTrtrUTnYkHvFYAw'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'sx1_AAAA and s1_AAAA are none'; END $$;
-- cut short is still more than should be told
DO $$ BEGIN RAISE EXCEPTION 'sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX'; END $$;
-- and so is whatever else follows a prefix
DO $$ BEGIN RAISE EXCEPTION 'column sm1_x of table sd1_y, sm1, sm1_'; END $$;
\set VERBOSITY default
DO $$ BEGIN RAISE EXCEPTION 'no token here' USING DETAIL = 'sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v',
	HINT = 'sd1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v'; END $$;
-- unless switched off
SET session_manager.redact_tokens = off;
\set VERBOSITY terse
SELECT :'secret'::integer;
RESET session_manager.redact_tokens;
\set VERBOSITY default
