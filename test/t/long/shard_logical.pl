# Buckets move from one shard to another by logical replication, as
# docs/sharding.md has it, while they are used: to a new server, and back.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use ShardTest;
use Test::More;

my $key = random_key();
my $map = PostgreSQL::Test::Utils::tempdir() . '/map';
my ($old, $new) = map {
	shard_node(
		$_,
		key => $key,
		extension => 0,
		conf => "wal_level = logical\n")
} 'old', 'new';
$new->safe_psql('postgres',
	q(LOAD 'session_manager'; ALTER SYSTEM SET session_manager.shard = 'none'; SELECT pg_reload_conf())
);
fails(
	'init of a fleet of which one server holds nothing, and nobody the rest',
	qr/shard 1 has no share|together the shards hold|one of 2 equal parts/,
	'init',
	server($old),
	server($new));
$old->safe_psql('postgres',
	q(ALTER SYSTEM SET session_manager.shard = '1/1'; SELECT pg_reload_conf())
);
succeeds('init with a server that holds nothing yet',
	'init', server($old), server($new));
write_map($map, [ 0, 65535, $old ]);
my @traffic = start_traffic($map, 2);

# Move the bytes from $first to $last.
sub move
{
	my ($from, $to, $first, $last) = @_;
	my $share = $first * 256 . '-' . ($last * 256 + 255);
	my $connection = server($from);
	$connection =~ s/'/''/g;

	# on the server that gives, then on the one that takes
	$from->safe_psql('postgres',
		"CREATE PUBLICATION moved FOR TABLE user_sessions WHERE (get_byte(uuid_send(session_id), 14) BETWEEN $first AND $last)"
	);
	$to->safe_psql('postgres',
		"CREATE SUBSCRIPTION moved CONNECTION '$connection' PUBLICATION moved"
	);
	$to->wait_for_subscription_sync($from, 'moved');

	my $given = succeeds('give', 'give', server($from), $share);
	my ($lsn) = $given =~ /up to (\S+)/;
	$from->poll_query_until('postgres',
		"SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = 'moved'"
	) or die 'the subscription does not catch up';
	$to->safe_psql('postgres', 'DROP SUBSCRIPTION moved');
	$from->safe_psql('postgres', 'DROP PUBLICATION moved');
	succeeds('take', 'take', server($to), $share);
	my $switch = on_switch($map) . " $share '' \"" . server($to) . '"';
	system_or_bail('sh', '-c', $switch);

	# events have no replica identity
	my $events =
	  "coalesce(get_byte(uuid_send(session_id), 14), session_bucket(user_id) / 256) BETWEEN $first AND $last";
	my $file = PostgreSQL::Test::Utils::tempdir() . '/events';
	$from->safe_psql('postgres',
		"\\copy (SELECT * FROM session_events WHERE $events) TO '$file'");
	$to->safe_psql('postgres', "\\copy session_events FROM '$file'");
	succeeds('clean', 'clean', server($from));
	is(strangers($_), 0, $_->name . ' has no rows of others')
	  foreach $old, $new;
	succeeds('the fleet is in order', 'status', server($old), server($new));
	return;
}

move($old, $new, 128, 191);
cmp_ok($new->safe_psql('postgres', 'SELECT count(*) FROM user_sessions'),
	'>', 0, 'sessions have moved');
move($old, $new, 200, 255);
is($new->safe_psql('postgres', 'SHOW session_manager.shard'),
	'32768-49151,51200-65535', 'the new server holds two parts');
move($new, $old, 128, 191);
is($old->safe_psql('postgres', 'SHOW session_manager.shard'),
	'0-51199', 'a part has come back');

fails(
	'giving what is not held',
	qr/does not hold all of/,
	'give', server($new), '128-191');
fails(
	'giving at a bucket within a byte',
	qr/must begin at a multiple of 256/,
	'give', server($new), '60000-65535');
fails('taking what is held',
	qr/twice in/, 'take', server($new), '51200-51455');
my $open = connection($new);
query($open, 'BEGIN; LOCK user_sessions IN ROW EXCLUSIVE MODE');
fails(
	'giving while a transaction that writes is open',
	qr/holds 51200-65535 again/,
	'give', server($new), '51200-51455', '--wait', '1');
$open->quit;
is($new->safe_psql('postgres', 'SHOW session_manager.shard'),
	'51200-65535', 'and takes it back');

my %count = end_traffic($map, @traffic);
is($count{errors}, 0, 'clients have met no error');
is($count{lost}, 0, 'no session is lost');
is($count{revived}, 0, 'none is revived');
my ($n, $different) = event_ids($old, $new);
is($different, $n, "$n events have different numbers");

done_testing();
