# pg_upgrade carries the sessions over.  It starts both servers in binary
# upgrade mode, with the library preloaded as their configuration says: that
# must neither fail nor start anything, key file or not.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $key = random_key();
my $old = new_node('old', preload => 'session_manager', key => $key);
my $new = new_node(
	'new',
	preload => 'session_manager',
	key => $key,
	start => 0);

my ($token, $gone) =
  map { create_session($old, $_, q('{"a": 1}')) } qw(ann bob);
$old->safe_psql(
	'postgres', qq(
	SELECT session_invalidate('$gone');
	SELECT session_cleanup();
	CREATE ROLE app;
	SELECT session_grant('app', 'app')));

my $rows = q(
	SELECT count(*), md5(string_agg(s::text, E'\n' ORDER BY session_id)) FROM user_sessions s;
	SELECT count(*), md5(string_agg(e::text, E'\n' ORDER BY event_id)) FROM session_events e;
	SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'session_events'::regclass ORDER BY 1;
	-- all but what the first worker notes: that no session waits to be re-sealed
	SELECT key_id, state, check_value, created_at, activated_at, retired_at, revoked_at FROM session_keys;
	SELECT last_value FROM session_events_event_id_seq);
my $before = $old->safe_psql('postgres', $rows);
$old->stop;

# Binary upgrade mode, also without a key file
foreach my $keys ('with', 'without')
{
	rename key_file($old), key_file($old) . '.away' if $keys eq 'without';
	$old->command_ok(
		[
			'pg_ctl', '-w', '-D', $old->data_dir,
			'-l', $old->logfile, '-o', '-b',
			'start'
		],
		"the server starts in binary upgrade mode $keys its key file");
	$old->command_ok([ 'pg_ctl', '-w', '-D', $old->data_dir, 'stop' ],
		'and stops');
}
rename key_file($old) . '.away', key_file($old);

# pg_upgrade writes into the current directory.
chdir $old->basedir;
my $bindir = $old->config_data('--bindir');
$old->command_ok(
	[
		'pg_upgrade', '--no-sync', '-d', $old->data_dir,
		'-D', $new->data_dir, '-b', $bindir,
		'-B', $bindir, '-s', $new->host,
		'-p', $old->port, '-P', $new->port
	],
	'pg_upgrade');
$new->start;

is($new->safe_psql('postgres', $rows),
	$before, 'every row and partition is there');
is( $new->safe_psql(
		'postgres', "SELECT user_id, data FROM session_get('$token')"),
	'ann|{"a": 1}',
	'a token works');
is(live($new, $gone), '0', 'a revoked one does not');
is( $new->safe_psql(
		'postgres', q(
		SET ROLE app;
		SELECT session_token AS t FROM session_create('carl') \gset
		SELECT status FROM session_refresh(:'t', true);)),
	'rotated',
	'the application goes on');
is( $new->safe_psql(
		'postgres', 'SELECT partitions_created FROM session_cleanup()'),
	'0',
	'cleanup finds its partitions');
my ($status, $stdout, $stderr) =
  $new->psql('postgres', 'DROP EXTENSION session_manager');
is($status, 0, 'DROP EXTENSION works') or diag $stderr;

done_testing();
