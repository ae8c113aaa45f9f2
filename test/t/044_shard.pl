# scripts/shard.sh: servers become shards of one installation, and a shard is
# split while it is used.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use ShardTest;
use Test::More;

my $map = PostgreSQL::Test::Utils::tempdir() . '/map';

# Setting up
my ($one, $two) =
  map { shard_node($_, extension => 0, start => 0) } 'one', 'two';
for ($one, $two)
{
	unlink key_file($_);
	$_->start;
}
fails(
	'init without the key file on the second server',
	qr/the shard 2 lacks the keys 1, copy the key file/,
	'init', server($one), server($two));
is($one->safe_psql('postgres', 'SHOW session_manager.shard'),
	'', 'and sets no share');
copy(key_file($one), key_file($two)) or die;
chmod 0600, key_file($two);

$two->safe_psql('postgres',
	q(ALTER SYSTEM SET session_manager.idle_timeout = '1h'; SELECT pg_reload_conf())
);
fails(
	'init of servers with different settings',
	qr/shard 1: session_manager.idle_timeout=0\n *shard 2: session_manager.idle_timeout=3600/,
	'init',
	server($one),
	server($two));
$two->safe_psql('postgres',
	q(ALTER SYSTEM RESET session_manager.idle_timeout; SELECT pg_reload_conf())
);
fails(
	'init of three servers',
	qr/power of two/,
	'init', server($one), server($two), server($one));
succeeds('init', 'init', server($one), server($two));
my $state = q(SELECT (SELECT json_agg(i) FROM session_installation AS i),
	(SELECT json_agg((key_id, state, check_value)) FROM session_keys));
is( $two->safe_psql('postgres', $state),
	$one->safe_psql('postgres', $state),
	'both servers have one installation and its keys');
is( join(' ',
		map { $_->safe_psql('postgres', 'SHOW session_manager.shard') } $one,
		$two),
	'0-32767 32768-65535',
	'each has half of the buckets');
my $first = create_session(
	$one,
	$one->safe_psql(
		'postgres',
		q(SELECT u FROM (SELECT 'u' || i AS u FROM generate_series(1, 99) AS i) AS q WHERE session_bucket(u) < 16384 LIMIT 1)
	));
my $numbers = 'SELECT last_value FROM session_events_event_id_seq';
my @before = map { $_->safe_psql('postgres', $numbers) } $one, $two;
cmp_ok($before[0], '<', 2**45, 'the events of the first have low numbers');
cmp_ok($before[1], '>=', 128 * 2**45, 'those of the second its own');
cmp_ok($before[1], '<', 2**53, 'which JavaScript can read');
like(
	succeeds('init again', 'init', server($one), server($two)),
	qr/shard 2 holds 32768-65535/,
	'nothing has changed by init again');
is_deeply([ map { $_->safe_psql('postgres', $numbers) } $one, $two ],
	\@before, 'nor are events renumbered');
ok( wait_until(
		sub {
			$two->safe_psql('postgres',
				"SELECT value FROM session_info() WHERE key = 'event_partitions'"
			) > 1;
		}),
	'workers serve the second server');

# Servers that are used already
my $other = shard_node('other');
create_session($other, 'ann');
fails(
	'init with a server that has sessions of its own',
	qr/installation of its own, with 1 sessions/,
	'init', server($one), server($other));
$other->stop;

my $status = succeeds('status', 'status', server($one), server($two));
like($status, qr/shard 2 +primary +32768-65535/, 'status shows the shards');
fails(
	'status of half a fleet',
	qr/nobody holds the buckets 32768-65535/,
	'status', server($one));
fails(
	'status with a server twice',
	qr/the shard 3 and others hold the buckets 0-32767/,
	'status', server($one), server($two), server($one));

# What others have put into the extension's schema is not called by a superuser's script
$one->safe_psql(
	'postgres', q(
	CREATE TABLE taken (role text);
	CREATE FUNCTION public.get_byte(bytea, integer) RETURNS integer LANGUAGE plpgsql AS
		'BEGIN INSERT INTO public.taken VALUES (current_user); RETURN pg_catalog.get_byte($1, $2); END';)
);

# What a process does that shows its commands to nobody is waited for until it ends
my $hidden = connection($one);
query($hidden, 'SET track_activities = off; SELECT 1');
my $hand_over = "SET statement_timeout = '300ms'; SELECT session_hand_over()";
like(failure($one, $hand_over),
	qr/^57014/, 'nothing is handed over before a hidden process ends');
$hidden->quit;
is(failure($one, 'SELECT session_hand_over()'), '', 'and then it is');

# A split
write_map($map, [ 0, 32767, $one ], [ 32768, 65535, $two ]);
my @clients = start_traffic($map, 2);
my $three = standby_of($one, 'three');
my @split =
  ('split', server($one), server($three), '--on-switch', on_switch($map));

fails(
	'a split of what the source does not hold',
	qr/does not hold all of 32768-49151/,
	@split, '--give', '3/4');
fails(
	'a split of everything',
	qr/would hold nothing/,
	@split, '--give', '1/2');
fails(
	'a split at a bucket within a byte',
	qr/must begin at a multiple of 256/,
	@split, '--give', '1/3');
fails(
	'a split to no standby',
	qr/has not been made from the source/,
	'split', server($one), server($two));

my $open = connection($one);
query($open, 'BEGIN; SELECT 1');
sleep 2;
fails(
	'a split while a transaction is open',
	qr/transactions are open for more than 1 s/,
	@split, '--wait', '1');
query($open, 'COMMIT');

my $dry = succeeds('a dry run', @split, '--dry-run');
like(
	$dry,
	qr/the source holds 0-32767, with \d+ sessions; the target is to hold 16384-32767, with \d+ of them/,
	'a dry run says what is given');
is( $one->safe_psql(
		'postgres',
		"SELECT current_setting('session_manager.shard'), to_regclass('session_shard_split')"
	),
	'0-32767|',
	'and does nothing');

# What is open when the share has become smaller holds the split up until it
# has waited for long enough; then the source has its share again.
my ($there, $code, $output) = shard_sh_until(
	'drain',
	sub {
		query($open, 'BEGIN; LOCK user_sessions IN ROW EXCLUSIVE MODE');
	},
	@split,
	'--wait',
	'2');
ok($there,
	'a transaction that writes is open when the share has become smaller');
isnt($code, 0, 'the split fails');
like($output, qr/undo +the source holds 0-32767 again/, 'having been undone');
is( $one->safe_psql(
		'postgres',
		"SELECT current_setting('session_manager.shard'), to_regclass('session_shard_split')"
	),
	'0-32767|',
	'with nothing left');
query($open, 'ROLLBACK');
$open->quit;

my $done = succeeds('a split', @split);
like(
	$done,
	qr/done: the source holds 0-16383, the target 16384-32767/,
	'a split says what it has done');
like(
	succeeds('the same split again', @split),
	qr/nothing to do/,
	'it does nothing the second time');
succeeds(
	'status of the fleet',
	'status', map { server($_) } $one,
	$three, $two);
my %count = end_traffic($map, @clients);
cmp_ok($count{wrong_shard}, '>', 0,
	'clients have met a server that had given their users away');
is($count{errors}, 0, 'no error');
is($count{lost}, 0, 'no session is lost');
is($count{revived}, 0, 'none is revived');
is(strangers($_), 0, $_->name . ' has no rows of others')
  foreach $one, $three;
my ($n, $different) = event_ids($one, $two, $three);
is($different, $n, "$n events have different numbers");
is( $three->safe_psql(
		'postgres',
		"SELECT count(*) FILTER (WHERE user_id IS NULL AND session_id IS NULL), current_setting('session_manager.databases') FROM session_events"
	),
	'0|',
	'events of keys stay on the source, and the target has workers');
is($_->safe_psql('postgres', 'SELECT count(*) FROM taken'),
	0, $_->name . ": the script has called nothing of others'")
  foreach $one, $three;
ok(live($one, $first), 'a session that stayed lives');

# An uneven split that takes the lowest buckets: the source renumbers its events,
# as the range of their numbers was that of these buckets.
my $four = standby_of($one, 'four');
succeeds('a split of the lowest buckets',
	'split', server($one), server($four), '--give', '1/16,3/16');
create_session(
	$one,
	$one->safe_psql(
		'postgres',
		q(SELECT u FROM (SELECT 'u' || i AS u FROM generate_series(1, 999) AS i) AS q WHERE session_bucket(u) / 4096 = 1 LIMIT 1)
	));
create_session(
	$four,
	$one->safe_psql(
		'postgres',
		q(SELECT u FROM (SELECT 'u' || i AS u FROM generate_series(1, 999) AS i) AS q WHERE session_bucket(u) / 4096 = 2 LIMIT 1)
	));
is( join(' ',
		map { $_->safe_psql('postgres', 'SHOW session_manager.shard') } $one,
		$four),
	'4096-8191,12288-16383 0-4095,8192-12287',
	'shares are lists');
($n, $different) = event_ids($one, $two, $three, $four);
is($different, $n, "$n events have different numbers");
is(strangers($_), 0, $_->name . ' has no rows of others') foreach $one, $four;
succeeds(
	'status of four shards',
	'status', map { server($_) } $one,
	$two, $three, $four);

# Servers that were shards without shard.sh have all numbered from 1 on.
my $six = shard_node('six');
my $seven = standby_of($six, 'seven');
$seven->promote;
for ([ $six, '1/2' ], [ $seven, '2/2' ])
{
	my ($node, $share) = @$_;
	$node->safe_psql('postgres',
		"ALTER SYSTEM SET session_manager.shard = '$share'; SELECT pg_reload_conf()"
	);
}
my $user =
  q(SELECT u FROM (SELECT 'u' || i AS u FROM generate_series(1, 99) AS i) AS q WHERE session_bucket(u) %s 32768 LIMIT 1);
create_session($six, $six->safe_psql('postgres', sprintf $user, '<'));
create_session($seven, $six->safe_psql('postgres', sprintf $user, '>='));
($n, $different) = event_ids($six, $seven);
cmp_ok($different, '<', $n, 'events of both have the same numbers');
succeeds('init of servers that are shards already',
	'init', server($six), server($seven));
create_session($seven, $six->safe_psql('postgres', sprintf $user, '>='));
cmp_ok(
	$seven->safe_psql('postgres', $numbers),
	'>=',
	128 * 2**45,
	'from then on they are numbered apart');
$seven->safe_psql('postgres',
	'UPDATE session_events SET event_id = event_id + (128::bigint << 45) WHERE event_id < 1::bigint << 45'
);
($n, $different) = event_ids($six, $seven);
is($different, $n, 'and the older ones after the UPDATE of the page');
my $eight = standby_of($seven, 'eight');
succeeds('status with a standby',
	'status', server($six), server($seven), server($eight));
$eight->safe_psql('postgres',
	"ALTER SYSTEM SET session_manager.shard = '1/1'; SELECT pg_reload_conf()"
);
fails(
	'status with a standby that has another share',
	qr/shard 3 is a standby with session_manager.shard for 0-65535/,
	'status',
	server($six),
	server($seven),
	server($eight));
$_->stop for $eight, $seven, $six;

# Undone before the promotion
my $five = standby_of($two, 'five');
my @undone = ('split', server($two), server($five));
ok((shard_sh_until('drain', undef, @undone))[0], 'a split is killed');
fails(
	'another split meanwhile',
	qr/a split that gives 49152-65535 has begun/,
	@undone, '--give', '3/4');
fails(
	'status meanwhile',
	qr/a split of the shard 1 is not finished/,
	'status', server($two));
$five->stop;
succeeds('undo without the target', 'split', '--undo', server($two));
is($two->safe_psql('postgres', 'SHOW session_manager.shard'),
	'32768-65535', 'the source has its share again');
fails(
	'undo of nothing',
	qr/no split of the source has begun/,
	'split', '--undo', server($two));
$five->start;
succeeds('a split after it was undone', @undone);
fails(
	'undo of what is done',
	qr/no split of the source has begun/,
	'split', '--undo', server($two));

# What its owner's trigger keeps from being deleted does not keep clean going for ever
create_session(
	$two,
	$two->safe_psql(
		'postgres',
		q(SELECT u FROM (SELECT 'u' || i AS u FROM generate_series(1, 999) AS i) AS q WHERE session_bucket(u) BETWEEN 32768 AND 40959 LIMIT 1)
	));
succeeds('a share is given', 'give', server($two), '5/8');
$two->safe_psql(
	'postgres', q(
	CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER keep BEFORE DELETE ON user_sessions FOR EACH ROW EXECUTE FUNCTION keep();)
);
fails(
	'clean where a trigger keeps the rows',
	qr/sessions of 0-40959,49152-65535 stay on the server .*trigger/,
	'clean', server($two));
$two->safe_psql('postgres', 'DROP TRIGGER keep ON user_sessions');
succeeds('clean without it', 'clean', server($two));
is(strangers($two), 0, 'leaves no rows of others');

done_testing();
