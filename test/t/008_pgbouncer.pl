# Behind a pooler in transaction mode 50 clients share a few connections of the
# server.  Everything works, and what session_bind() bound is never seen by
# another client.  Every statement that reads what it must not divides by zero,
# which ends pgbench with an error.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep);

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}),
  '/usr/sbin';
plan skip_all => 'pgbouncer is not installed' unless defined $pgbouncer;

my $pool = 6;
my $node = new_node('pooled', preload => 'session_manager');
$node->safe_psql(
	'postgres', q(
	CREATE ROLE app LOGIN;
	SELECT session_grant('app', 'app');
	CREATE TABLE notes (owner text, note text);
	INSERT INTO notes SELECT 'user-' || n, 'note of ' || n FROM generate_series(1, 500) n;
	ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON notes USING (owner = session_user_id());
	GRANT SELECT ON notes TO app;));

# A pooler of its own
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my ($host, $port) = ($node->host, $node->port);
write_file("$dir/users.txt", qq("app" ""\n));
write_file(
	"$dir/pgbouncer.ini", qq(
[databases]
postgres = host=$host port=$port
[pgbouncer]
unix_socket_dir = $dir
listen_addr =
listen_port = $port
auth_type = trust
auth_file = $dir/users.txt
pool_mode = transaction
default_pool_size = $pool
max_client_conn = 200
logfile = $dir/pgbouncer.log
));
my $pooler = IPC::Run::start([ $pgbouncer, "$dir/pgbouncer.ini" ],
	'<', '/dev/null', '>', "$dir/pgbouncer.out", '2>&1');

END
{
	my $exit_code = $?;
	$pooler->kill_kill if defined $pooler;
	$? = $exit_code;
}

my $pooled = "host=$dir port=$port user=app dbname=postgres";
# A psql that cannot connect ends before it is given its statement.
wait_until(
	sub {
		-S "$dir/.s.PGSQL.$port"
		  && $node->psql('postgres', 'SELECT 1', connstr => $pooled) == 0;
	}) or die 'pgbouncer does not start';

my $life = $node->basedir . '/life.sql';
write_file($life, <<'EOS');
\set u random(1, 500)
SELECT session_token AS t FROM session_create('user-' || :u::int, jsonb_build_object('n', :u::int)) \gset
SELECT 1 / count(*) FROM session_get(:t) WHERE user_id = 'user-' || :u::int AND data = jsonb_build_object('n', :u::int);
SELECT 1 / (session_user_id() IS NULL AND session_id() IS NULL)::int;
BEGIN;
SELECT 1 / session_bind(:t)::int;
SELECT 1 / (session_user_id() = 'user-' || :u::int)::int;
SELECT 1 / (count(*) = 1 AND min(owner) = 'user-' || :u::int)::int FROM notes;
COMMIT;
SELECT 1 / (count(*) = 0)::int FROM notes;
SELECT 1 / session_bind(:t)::int;
SELECT 1 / (session_user_id() IS NULL)::int;
SELECT 1 / count(*) FROM session_update(:t, '{"seen": true}') WHERE version = 2;
SELECT session_token AS t FROM session_refresh(:t, true) \gset
SELECT 1 / count(*) FROM session_get(:t) WHERE data = jsonb_build_object('n', :u::int, 'seen', true);
BEGIN;
SELECT 1 / session_bind(:t)::int;
ROLLBACK;
SELECT 1 / (session_user_id() IS NULL)::int;
SELECT 1 / (session_invalidate(:t) = 'user-' || :u::int)::int;
SELECT 1 / (count(*) = 0)::int FROM session_get(:t);
EOS

my $transactions = 8 * long_runs();
my ($out, $log) = map { $node->basedir . "/$_" } qw(pgbench.out pgbench.log);
my $most = 0;
my @running = in_parallel(
	$node,
	{
		cmd => [
			'pgbench', '-n', '-M', 'extended', '-c', '50', '-j', '2', '-t',
			$transactions, '-f', $life, $pooled
		],
		out => $out
	});
while ($running[0]->pumpable)
{
	my $n = $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'");
	$most = $n if $n > $most;
	usleep(200_000);
}
is((finish_all(@running))[0], 0, '50 clients live their sessions')
  or diag slurp_file($out);
my $all = 50 * $transactions;
like(
	slurp_file($out),
	qr{transactions actually processed: $all/$all\b},
	'all of them to the end');
cmp_ok($most, '<=', $pool, "they share at most $pool connections");
cmp_ok($most, '>', 0, 'of the server');
is( $node->safe_psql(
		'postgres',
		q(SELECT event, count(*) FROM session_events WHERE event !~ '^key' GROUP BY 1 ORDER BY 1)
	),
	join("\n", map { "$_|$all" } qw(created invalidated rotated updated)),
	'every change is on record');
is($node->safe_psql('postgres', 'SELECT session_active_count()'),
	'0', 'every session is over');

# An error ends a transaction as well.
my $token = create_session($node, 'user-1');
my ($status, $stdout, $stderr) = $node->psql(
	'postgres', qq(
	BEGIN;
	SELECT session_bind('$token'), session_user_id();
	SELECT 1 / 0;
	ROLLBACK;
	SELECT session_user_id() IS NULL, count(*) FROM notes;
	),
	connstr => $pooled,
	on_error_stop => 0);
is($stdout, "t|user-1\nt|0", 'the identity ends with a failed transaction');

$pooler->signal('INT');
$pooler->finish;
undef $pooler;
done_testing();
