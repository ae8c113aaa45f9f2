# Four shards become eight while they are used: once undisturbed, then ten times,
# or SM_SHARD_RUNS, while sources, targets and scripts/shard.sh are killed at
# random.  Half of the clients are the Django package's, where SM_DJANGO_PYTHON
# names a Python that has Django.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use ShardTest;
use Test::More;

my $runs = $ENV{SM_SHARD_RUNS} // 10;
my $django_clients = $ENV{SM_DJANGO_PYTHON} ? 2 : 0;
my $clients = 4 - $django_clients;
my $max_kills = 4;
my $key = random_key();

# The longest time after which a script is killed: most splits take less.
my $kill_within = 2;

# Split a shard, with so many kills before it may come to its end.
sub split_shard
{
	my ($kills, $source, $target, @arguments) = @_;
	my %killed;
	for (1 .. $kills)
	{
		my $victim = (qw(script source target))[ int rand 3 ];
		my $server =
			$victim eq 'source' ? $source
		  : $victim eq 'target' ? $target
		  :                       undef;
		my $in_time = shard_sh_killed(
			rand $kill_within,
			$server ? sub { crash($server) } : undef,
			'split', server($source), server($target), @arguments);
		$killed{$victim}++ if $in_time;
		next unless $server;
		wait_until(sub { $server->start(fail_ok => 1) }) or die 'no start';
	}
	succeeds(
		'a split succeeds after kills of '
		  . (
			join(', ', map { "$_: $killed{$_}" } sort keys %killed)
			  || 'nobody'),
		'split',
		server($source),
		server($target),
		@arguments);
	return;
}

sub four_become_eight
{
	my ($run) = @_;
	my $map = PostgreSQL::Test::Utils::tempdir() . '/map';
	my @sources =
	  map { shard_node("run${run}_$_", key => $key, extension => 0) } 1 .. 4;
	succeeds('init', 'init', map { server($_) } @sources);
	write_map($map,
		map { [ $_ * 16384, $_ * 16384 + 16383, $sources[$_] ] } 0 .. 3);
	my @traffic = start_traffic($map, $clients, $django_clients);
	my @targets;
	for my $source (@sources)
	{
		my $target = standby_of($source, $source->name . '_target');
		split_shard($run == 0 ? 0 : 1 + int rand $max_kills,
			$source, $target, '--on-switch', on_switch($map));
		push @targets, $target;
	}
	succeeds(
		'the fleet is in order', 'status',
		map { server($_) } @sources, @targets);
	my %count = end_traffic($map, @traffic);
	is( "$count{lost} $count{revived} $count{errors}",
		'0 0 0',
		"run $run: none lost, none revived, no error");
	my ($n, $different) = event_ids(@sources, @targets);
	is($different, $n, "$n events have different numbers");
	is( join(' ', map { strangers($_) } @sources, @targets),
		join(' ', (0) x 8),
		'no server has rows of others');
	$_->stop       for @targets, @sources;
	$_->clean_node for @targets, @sources;
	return;
}

four_become_eight($_) for 0 .. $runs;

done_testing();
