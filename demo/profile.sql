-- Made-up profiles in the shape that an OpenID Connect provider returns:
-- nested, in many scripts, 0.4 to 4 kB.  A number always makes the same one.

CREATE SCHEMA demo;

CREATE FUNCTION demo.user_id(n int) RETURNS text
LANGUAGE sql IMMUTABLE AS
$$ SELECT 'auth0|user-' || to_char(n, 'FM000000') $$;

CREATE FUNCTION demo.profile(n int) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object(
		'sub', demo.user_id(n),
		'name', person.name,
		'nickname', 'user-' || to_char(n, 'FM000000'),
		'email', 'user-' || to_char(n, 'FM000000') || '@example.com',
		'email_verified', n % 10 <> 0,
		'locale', person.locale,
		'zoneinfo', person.zone,
		'picture', 'https://cdn.example.com/avatar/' || md5(n::text) || '.png',
		'identities', jsonb_build_array(jsonb_build_object(
			'provider', 'auth0', 'user_id', 'user-' || to_char(n, 'FM000000'),
			'connection', 'Username-Password-Authentication', 'isSocial', false)),
		'app_metadata', jsonb_build_object(
			'plan', (ARRAY['free', 'team', 'enterprise'])[n % 3 + 1],
			'roles', to_jsonb((ARRAY['viewer', 'editor', 'billing', 'admin'])[1:n % 4 + 1]),
			'subscription', jsonb_build_object('status', 'active', 'seats', n % 50 + 1)),
		'user_metadata', jsonb_build_object(
			'theme', (ARRAY['light', 'dark'])[n % 2 + 1],
			'recent', (
				SELECT coalesce(jsonb_agg(jsonb_build_object(
					'path', '/projects/' || md5(n::text || i::text) || '/overview',
					'title', person.title || ' ' || i,
					'pinned', i % 5 = 0)), '[]')
				FROM generate_series(1, (n::bigint * 7919 % 31)::int - 3) AS i)))
	FROM (
		SELECT (ARRAY['Müller, Jürgen', 'Łucja Żółć', '山田 花子', 'فاطمة الزهراء',
				'Zoë Grüneßer', 'Søren Ågård', 'Nguyễn Ánh', 'Екатерина Щукина'])[i],
			(ARRAY['de-DE', 'pl-PL', 'ja-JP', 'ar-EG',
				'de-CH', 'da-DK', 'vi-VN', 'ru-RU'])[i],
			(ARRAY['Europe/Berlin', 'Europe/Warsaw', 'Asia/Tokyo', 'Africa/Cairo',
				'Europe/Zurich', 'Europe/Copenhagen', 'Asia/Ho_Chi_Minh', 'Europe/Moscow'])[i],
			(ARRAY['Übersicht', 'Przegląd', '概要', 'نظرة عامة',
				'Überblick', 'Oversigt', 'Tổng quan', 'Обзор'])[i]
		FROM (SELECT n % 8 + 1 AS i) AS pick
	) AS person (name, locale, zone, title)
$$;

CREATE FUNCTION demo.user_agent(n int) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	SELECT (ARRAY[
		'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0',
		'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Safari/604.1',
		'Mozilla/5.0 (Linux; Android 15) Chrome/137.0 Mobile Safari/537.36',
		'Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/137.0 Safari/537.36'])[n % 4 + 1]
$$;

-- Addresses from the blocks that are reserved for documentation.
CREATE FUNCTION demo.ip(n int) RETURNS inet
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE n % 3
		WHEN 0 THEN inet '192.0.2.0' + n % 256
		WHEN 1 THEN inet '203.0.113.0' + n % 256
		ELSE inet '2001:db8::' + n
	END
$$;

GRANT USAGE ON SCHEMA demo TO webapp, privacy;
