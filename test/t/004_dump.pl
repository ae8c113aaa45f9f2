# A dump carries everything: restored into another database, or onto another
# server that has the key file, every token works as before.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'source',
	extension => 0,
	conf => "session_manager.event_partition = 'day'");
my $dir = $node->basedir;

$node->safe_psql(
	'postgres', q(
	CREATE ROLE app;
	CREATE DATABASE shop;));
$node->safe_psql('shop', 'CREATE SCHEMA auth');
install_extension($node, 'shop', 'auth');
$node->safe_psql('shop',
	q(ALTER DATABASE shop SET search_path = auth, public));

# Sessions of every kind, under two keys, events in partitions and a grant
append_to_file(key_file($node), '2:' . random_key() . "\n");
my ($plain, $tenant, $old, $new, $elevated, $revoked) = split /\n/,
  $node->safe_psql(
	'shop', q(
	SELECT session_grant('app', 'app') \g /dev/null
	SELECT partitions_created FROM session_cleanup() \g /dev/null
	SELECT session_token AS plain FROM session_create('ann', '{"name": "Ann Ünal"}') \gset
	SELECT session_key_add(2), session_key_activate(2) \g /dev/null
	SELECT session_token AS tenant FROM session_create('ann', '{}', tenant_id => 'acme', ip => '2001:db8::1', auth => '{"amr": ["pwd"]}') \gset
	SELECT session_token AS old FROM session_create('bob') \gset
	SELECT session_token AS new FROM session_refresh(:'old', true) \gset
	SELECT session_token AS before FROM session_create('carl', '{"a": 1}') \gset
	SELECT session_token AS elevated FROM session_elevate(:'before', '{"amr": ["otp"]}') \gset
	SELECT session_token AS revoked FROM session_create('dora') \gset
	SELECT session_invalidate(:'revoked') \g /dev/null
	\echo :plain
	\echo :tenant
	\echo :old
	\echo :new
	\echo :elevated
	\echo :revoked
	INSERT INTO session_events (at, user_id, event) VALUES ('2020-02-02', 'ann', 'created');
	));

my $snapshot = q(
	SELECT 'sessions', count(*), md5(string_agg(s::text, E'\n' ORDER BY session_id)) FROM user_sessions s;
	SELECT 'events', count(*), md5(string_agg(e::text, E'\n' ORDER BY event_id)) FROM session_events e;
	SELECT 'keys', k FROM session_keys k ORDER BY key_id;
	SELECT 'installation', i FROM session_installation i;
	SELECT 'partition', c.relname, pg_get_expr(c.relpartbound, c.oid),
		(SELECT count(*) FROM pg_index x WHERE x.indrelid = c.oid)
		FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE i.inhparent = 'session_events'::regclass ORDER BY c.relname;
	SELECT 'sequence', last_value, is_called FROM session_events_event_id_seq;
	SELECT 'default', count(*) FROM session_events_default;
);
my $original = $node->safe_psql('shop', $snapshot);
my @partitions = $original =~ /^partition\|/mg;
cmp_ok(scalar(@partitions), '>', 1, 'session_cleanup made partitions');

my $reads = join ";\n", map {
	"SELECT session_id, user_id, tenant_id, data, version, auth FROM session_get('$_', touch => false)"
} ($plain, $tenant, $old, $new, $elevated, $revoked);
my $answers = $node->safe_psql('shop', $reads);
is(scalar(split /\n/, $answers), 5, 'five of six tokens are live');

# What the restored database must be and do.
sub check_restored
{
	my ($server, $dbname, $how) = @_;

	# Set here: where a single database is restored its own settings are not.
	my $path = 'SET search_path = auth, public;';

	is($server->safe_psql($dbname, "$path $snapshot"),
		$original, "$how: every row, partition and index is as it was");
	is($server->safe_psql($dbname, "$path $reads"),
		$answers, "$how: every token answers as it did");
	is( $server->safe_psql(
			$dbname, qq($path
			SELECT has_function_privilege('app', 'session_get(text, inet, text, boolean)', 'EXECUTE'),
				has_function_privilege('app', 'session_erase(text)', 'EXECUTE'),
				has_schema_privilege('app', 'auth', 'USAGE'),
				has_table_privilege('app', 'user_sessions', 'SELECT'),
				bool_or(has_function_privilege('public', p.oid, 'EXECUTE'))
			FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
				JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'session_manager')
		),
		't|f|t|f|f',
		"$how: privileges are as granted, none for PUBLIC");
	is( $server->safe_psql(
			$dbname, qq($path
			SELECT session_token AS t FROM session_create('zoe') \\gset
			SELECT version FROM session_update(:'t', '{"a": 1}');
			SELECT status FROM session_refresh('$new', true);
			SELECT session_invalidate('$plain');
			SELECT count(*), count(DISTINCT event_id) = count(*) FROM session_events;
			SELECT partitions_created FROM session_cleanup();
			SELECT count(*) FROM session_history(user_id => 'zoe');)),
		join("\n",
			'2', 'rotated', 'ann',
			($original =~ /^events\|(\d+)/m)[0] + 4 . '|t',
			'0', '2'),
		"$how: the restored database works on, its sequence too");
	my ($status, $stdout, $stderr) =
	  $server->psql($dbname, 'DROP EXTENSION session_manager');
	is($status, 0, "$how: DROP EXTENSION works") or diag $stderr;
	return;
}

$node->command_ok(
	[ 'pg_dump', '-f', "$dir/shop.sql", $node->connstr('shop') ],
	'plain dump');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/shop.sql",
		$node->connstr('plain')
	],
	'is restored');
check_restored($node, 'plain', 'plain');

$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', "$dir/shop.dump", $node->connstr('shop') ],
	'custom dump');
$node->safe_psql('postgres', 'CREATE DATABASE custom');
$node->command_checks_all(
	[
		'pg_restore', '--exit-on-error',
		'-d', $node->connstr('custom'),
		"$dir/shop.dump"
	],
	0,
	[qr/^$/],
	[qr/^$/],
	'is restored without a word');
check_restored($node, 'custom', 'custom');

$node->command_ok(
	[
		'pg_dump', '-Fd', '-j2', '-f', "$dir/shop.dir", $node->connstr('shop')
	],
	'directory dump');
$node->safe_psql('postgres', 'CREATE DATABASE directory');
$node->command_checks_all(
	[
		'pg_restore', '--exit-on-error',
		'-j2', '-d',
		$node->connstr('directory'), "$dir/shop.dir"
	],
	0,
	[qr/^$/],
	[qr/^$/],
	'is restored by two jobs without a word');
check_restored($node, 'directory', 'directory');

# Another server, its roles with it.
$node->safe_psql('postgres', "DROP DATABASE $_")
  foreach qw(plain custom directory);
my $other = new_node(
	'other',
	extension => 0,
	preload => 'session_manager',
	# the workers would drop an event that is past retention
	conf => "session_manager.databases = 'nowhere'");
write_file(key_file($other), slurp_file(key_file($node)));
$other->restart;
$node->command_ok(
	[ 'pg_dumpall', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ],
	'dump of all');
my ($stdout, $stderr) = ('', '');
{
	local %ENV = $other->_get_env();
	IPC::Run::run(
		[ 'psql', '-Xq', '-f', "$dir/all.sql", $other->connstr('postgres') ],
		'>', \$stdout, '2>', \$stderr);
}
is(join("\n", grep { !/role ".*" already exists/ } split /\n/, $stderr),
	'', 'is restored without a word but on the role that every server has');
check_restored($other, 'shop', 'other server');

done_testing();
