# The extension is dropped and created again under connections that stay open
# and have everything cached: tables, indexes, keys, functions and plans of the
# old one must not be used for the new one.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node('recreate', extension => 0);
$node->safe_psql('postgres', 'CREATE EXTENSION pgcrypto');

# Every function that keeps something between calls, in the schema named.
sub lifecycle
{
	my ($connection, $schema) = @_;
	my ($output, $error) = query(
		$connection, qq(
		SELECT session_id AS id, session_token AS t FROM $schema.session_create('ann', '{"a": 1}') \\gset
		SELECT data FROM $schema.session_get(:'t');
		SELECT version FROM $schema.session_update(:'t', '{"a": 2}');
		SELECT session_token AS t FROM $schema.session_refresh(:'t', true) \\gset
		SELECT data FROM $schema.session_get(:'t');
		SELECT count(*) FROM $schema.session_list('ann', :'t') WHERE is_current;
		SELECT partitions_created >= 0 FROM $schema.session_cleanup();
		SELECT $schema.session_reencrypt();
		SELECT count(*) FROM $schema.session_history(:'id') WHERE event = 'updated';
		SELECT $schema.session_invalidate(:'t');
		SELECT $schema.session_active_count(user_id => 'ann');));
	is($error, '', 'no error');
	return $output;
}
my $works = join "\n", '{"a": 1}', 2, '{"a": 2}', 1, 't', 0, 1, 'ann', 0;
my $create = 'CREATE EXTENSION session_manager; SELECT session_key_add(1);';

my $own = connection($node);
my $other = connection($node);
query($own, $create);
is(lifecycle($own, 'public'), $works, 'the extension works');
is(lifecycle($other, 'public'), $works, 'in another connection, too');
my $token = create_session($node, 'bob');
query($other,
	'PREPARE get(text) AS SELECT count(*) FROM session_get($1); PREPARE make(text) AS SELECT session_token FROM session_create($1)'
);
is(query($other, "EXECUTE get('$token')"), '1', 'also prepared');

# Back after a rollback
is( query(
		$own, "BEGIN; DROP EXTENSION session_manager; ROLLBACK;
		SELECT count(*) FROM session_get('$token')"),
	'1',
	'a rolled back DROP EXTENSION changes nothing');

# Dropped and created, several times
foreach my $round (1 .. 2)
{
	query($own, 'DROP EXTENSION session_manager');
	like((query($other, "EXECUTE get('$token')"))[1],
		qr/42883/, "round $round: no function while the extension is gone");
	query($own, 'CREATE EXTENSION session_manager');
	like((query($other, "EXECUTE make('carl')"))[1],
		qr/SM003/, "round $round: the new extension has no key yet");
	query($own, 'SELECT session_key_add(1)');

	is(lifecycle($own, 'public'),
		$works, "round $round: works in the connection that did it");
	is(query($own, "SELECT count(*) FROM session_get('$token')"),
		'0', "round $round: the old token is unknown there");
	is(lifecycle($other, 'public'),
		$works, "round $round: works in another connection");
	is(query($other, "EXECUTE get('$token')"),
		'0', "round $round: the old token is unknown there, prepared");
	$token = query($other, "EXECUTE make('bob')");
	is(query($own, "SELECT user_id FROM session_get('$token')"),
		'bob', "round $round: a token of one works in the other");
}

# All in one transaction
is( query(
		$own, qq(BEGIN; DROP EXTENSION session_manager; $create
		SELECT session_token AS t FROM session_create('dora') \\gset
		SELECT user_id FROM session_get(:'t'); COMMIT;
		SELECT user_id FROM session_get(:'t');)),
	"\ndora\ndora",
	'dropped, created and used in one transaction');
is(lifecycle($other, 'public'), $works, 'and works in another connection');

# Elsewhere
query(
	$own, 'DROP EXTENSION session_manager; CREATE SCHEMA elsewhere;
	CREATE EXTENSION session_manager SCHEMA elsewhere;
	SELECT elsewhere.session_key_add(1);');
is(lifecycle($own, 'elsewhere'), $works, 'works in another schema');
is(lifecycle($other, 'elsewhere'), $works, 'also in another connection');
like((query($other, "EXECUTE get('$token')"))[1],
	qr/42883/, 'and is not found where it was');
like((query($own, 'ALTER EXTENSION session_manager SET SCHEMA public'))[1],
	qr/0A000/, 'it cannot be moved');
is(query($own, q(ALTER SCHEMA elsewhere RENAME TO renamed; SELECT 1)),
	'1', 'but its schema renamed');
is(lifecycle($own, 'renamed'), $works, 'it works under the new name');
is(lifecycle($other, 'renamed'), $works, 'also in another connection');

# Rewritten tables and rebuilt indexes under the caches
$token =
  query($own, "SELECT session_token FROM renamed.session_create('emma')");
foreach my $command (
	'VACUUM FULL renamed.user_sessions',
	'REINDEX INDEX renamed.user_sessions_pkey',
	'CLUSTER renamed.user_sessions USING user_sessions_user_id_idx')
{
	query($own, $command);
	is(query($other, "SELECT user_id FROM renamed.session_get('$token')"),
		'emma', "a session is read after $command");
	is( lifecycle($other, 'renamed') =~ s/\d+$//r,
		$works =~ s/\d+$//r,
		'and everything works');
}

$own->quit;
$other->quit;
done_testing();
