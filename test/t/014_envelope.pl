# Somebody who has the key and can write to the tables can seal anything.  It
# opens to what jsonb can be, or it is corrupt; it never ends the server.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $key = random_key();
my $node = new_node('envelope', key => $key);
my $token = create_session($node, 'ann', q('{"n": 1}'));

my $us =
  sub { "(extract(epoch FROM $_[0]) * 1000000)::bigint - 946684800000000" };
my @row = split /\|/, $node->safe_psql(
	'postgres', "
	SELECT installation_id, key_id, version, @{[$us->('s.created_at')]}, @{[$us->('authenticated_at')]},
		session_id, @{[$us->('absolute_expires_at')]}, user_id
	FROM session_installation, user_sessions AS s");
my ($sealed, $error) =
  run_command([ 'python3', "$FindBin::RealBin/lib/seal.py", $key, @row ]);
is($error, '', 'envelopes are sealed');
my @sealed = map { [ split / / ] } split /\n/, $sealed;
cmp_ok(scalar @sealed, '>', 400, 'many of them');

$node->safe_psql(
	'postgres', "
	CREATE TABLE sealed (name text, sealed_data bytea);
	INSERT INTO sealed VALUES "
	  . join(', ', map { "('$_->[0]', '\\x$_->[1]')" } @sealed) . ";
	CREATE FUNCTION state(call text) RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		EXECUTE call;
		RETURN 'ok';
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END
	\$\$;
	CREATE FUNCTION opened(sealed bytea, calls text[]) RETURNS text[] LANGUAGE plpgsql AS \$\$
	DECLARE
		states text[];
	BEGIN
		BEGIN
			UPDATE user_sessions SET sealed_data = sealed;
			SELECT array_agg(DISTINCT state(call)) INTO states FROM unnest(calls) AS call;
			RAISE SQLSTATE 'OK000';
		EXCEPTION WHEN SQLSTATE 'OK000' THEN
			RETURN states;
		END;
	END
	\$\$;");

# All that open a seal; the last two pass over what does not open.
my $calls = join ', ',
  map { "\$\$$_\$\$" } (
	"SELECT data || '{}', data::text, auth::text FROM session_get('$token')",
	"SELECT data::text FROM session_update('$token', '{\"x\": {\"y\": 1}}')",
	"SELECT * FROM session_elevate('$token', '{}')",
	"SELECT session_update_user('ann', '{\"n\": null}')");
my $others = join ', ',
  map { "\$\$$_\$\$" } (
	"SELECT auth::text FROM session_list('ann')",
	"SELECT session_export('ann')::json ->> 'sessions'");

my $log = -s $node->logfile;
my $states = $node->safe_psql(
	'postgres', "
	SET client_min_messages = error;
	SELECT name, opened(sealed_data, ARRAY[$calls]), opened(sealed_data, ARRAY[$others])
	FROM sealed WHERE name NOT LIKE 'random%'");
foreach (split /\n/, $states)
{
	my ($name, $answer, $passed_over) = split /\|/;
	my $expected =
	  $name =~ /^sound/ ? '{ok}' : $name eq 'deep' ? '{54001}' : '{SM004}';
	is($answer, $expected, "$name: $expected");
	is($passed_over, '{ok}', "$name: a list and an export do not mind")
	  unless $name eq 'deep';
}
$states = $node->safe_psql(
	'postgres', "
	SET client_min_messages = error;
	SELECT answer, count(*) FROM (
		SELECT opened(sealed_data, ARRAY[$calls]) || opened(sealed_data, ARRAY[$others]) AS answer
		FROM sealed WHERE name LIKE 'random%') AS r
	GROUP BY answer ORDER BY 1");
like($states, qr/^\{SM004,ok\}\|\d+/m, 'changed at random, most are corrupt');
unlike($states, qr/XX|5\d{4}/, 'none is an internal error');
unlike(
	slurp_file($node->logfile, $log),
	qr/terminated by signal|TRAP|PANIC/,
	'and the server lived through it all');

$node->stop;
done_testing();
