# A split while the source, the target or scripts/shard.sh are killed at each of
# its steps: run again, it goes on, and clients lose nothing.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use ShardTest;
use Test::More;

my @steps =
  qw(plan prepare narrow drain replay promote open switch clean finish);

my $map = PostgreSQL::Test::Utils::tempdir() . '/map';
my $source = shard_node('source');
my @all = ($source);
succeeds('init of a single shard', 'init', server($source));
write_map($map, [ 0, 65535, $source ]);

for my $victim ('script', 'source', 'target')
{
	my $target = standby_of($source, "for_$victim");
	my @split = (
		'split', server($source), server($target), '--on-switch',
		on_switch($map));
	my @clients = start_traffic($map, 2);

	# Where the split is undone because of that, the next run begins from the start.
	for my $step (@steps)
	{
		# without the source the run that loses it at "replay" comes past this
		next if $victim eq 'source' && $step eq 'promote';

		my $server =
			$victim eq 'source' ? $source
		  : $victim eq 'target' ? $target
		  :                       undef;
		my ($there) = shard_sh_until($step,
			$server ? sub { crash($server) } : undef, @split);
		ok($there, "the $victim is killed at step $step");
		next unless $server;
		wait_until(sub { $server->start(fail_ok => 1) }) or die 'no start';
	}
	push @all, $target;
	succeeds("the split succeeds after the $victim was killed", @split);
	like(succeeds('and has been made', @split), qr/nothing to do/, 'once');
	succeeds('the fleet is in order', 'status', map { server($_) } @all);

	my %count = end_traffic($map, @clients);
	cmp_ok($count{calls}, '>', 100, 'clients were there');
	is($count{errors}, 0, 'and have met no error');
	is($count{lost}, 0, 'no session is lost');
	is($count{revived}, 0, 'none is revived');
	is(strangers($_), 0, $_->name . ' has no rows of others') foreach @all;
	my ($n, $different) = event_ids(@all);
	is($different, $n, "$n events have different numbers");
}

done_testing();
