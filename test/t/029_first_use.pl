# The first use of a new token tells a replay of the old one from a lost answer.
# session_get notes it in shared memory; whatever the token's holder then has
# acknowledged as written carries it to the table, so that neither a crash nor
# a failover forgets it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'primary',
	preload => 'session_manager',
	streaming => 1,
	conf => q(
session_manager.rotation_grace = 0
session_manager.flush_interval = 1h
session_manager.sweep_interval = 1h
));
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# it would write what is recorded meanwhile
first_pass($node) or die 'no first pass';

# Does the table itself tell that the new token has been used?
sub written
{
	my ($user) = @_;
	return $node->safe_psql('postgres',
		"SELECT successor_used_at IS NOT NULL FROM user_sessions WHERE user_id = '$user'"
	);
}

sub used
{
	my ($token) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM session_get('$token')");
}

# What the holder of the new token does after a read, and whether that was the
# first to be heard of the token
my %uses = (
	'update' => q(SELECT version FROM session_update('%s', '{"n": 2}')),
	'update that changes nothing' =>
	  q(SELECT version FROM session_update('%s', '{}')),
	'refresh' => q(SELECT status FROM session_refresh('%s')));
my (%old, %new);
foreach my $read (1, 0)
{
	foreach my $use (sort keys %uses)
	{
		my $user = ($read ? 'read, then ' : 'first of all ') . $use;
		$old{$user} = create_session($node, $user, q('{"n": 1}'));
		$new{$user} = $node->safe_psql('postgres',
			"SELECT session_token FROM session_refresh('$old{$user}', rotate => true)"
		);
		is(used($new{$user}), '1', "$user: read") if $read;
		$node->safe_psql('postgres', sprintf($uses{$use}, $new{$user}));
		is(written($user), 't',
			"$user: its use of the new token is in the table");
	}
}

# What only a read knew is lost, as last-seen times are
my $lost = 'read alone';
$old{$lost} = create_session($node, $lost);
$new{$lost} = $node->safe_psql('postgres',
	"SELECT session_token FROM session_refresh('$old{$lost}', rotate => true)"
);
is(used($new{$lost}), '1', "$lost: read");
is( $node->safe_psql(
		'postgres', 'SELECT touches_pending > 0 FROM session_stats'),
	't',
	"$lost: recorded in shared memory");
is(written($lost), 'f', "$lost: not in the table yet");

$node->wait_for_catchup('standby', 'replay');
my $postmaster =
  (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
my @family = split /\n/, `ps -o pid= --ppid $postmaster`;
$node->kill9;
wait_until(
	sub {
		!grep { kill 0, $_ } $postmaster, @family;
	}) or die 'the server lives on';

sub replays
{
	my ($server, $what) = @_;
	foreach my $user (sort grep { $_ ne $lost } keys %old)
	{
		is( $server->safe_psql(
				'postgres',
				"SELECT status FROM session_refresh('$old{$user}')"),
			'reused',
			"$user: the old token is a replay after $what");
		is(live($server, $new{$user}), '0', "$user: the session has ended");
	}
	is( $server->safe_psql(
			'postgres', "SELECT status FROM session_refresh('$old{$lost}')"),
		'rotated',
		"$lost: a replay looks like a lost answer after $what");
	return;
}

$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
  or die 'the standby is not promoted';
replays($standby, 'a failover');
$standby->stop;

$node->start;
replays($node, 'a crash');
$node->stop;

done_testing();
