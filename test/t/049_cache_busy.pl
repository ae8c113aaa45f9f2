# On a machine that has too much to do, sessions still come from the cache.
# It keeps every processor busy itself, and compares with what it measured
# before it did: nothing else should run meanwhile.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheHistory;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = 2.5;
my $history = CacheHistory->new('cache_busy', 'async');

my $r = $history->run_async('nothing wrong', $seconds, undef);
cmp_ok($r->{share}, '>', 0.3, 'nothing wrong: sessions come from the cache');

# Six busy loops for each processor.  The machine may have other work too, for a while: one of six
# tries has to reach half of the share.
my $loops = CacheHistory::busy_loops(6);
my $busy;
for (1 .. 6)
{
	$busy = $history->run_async('a busy machine', $seconds, undef);
	last if $busy->{share} >= $r->{share} / 2;
}
CacheHistory::end_loops($loops);
cmp_ok(
	$busy->{share},
	'>=',
	$r->{share} / 2,
	sprintf
	  'a busy machine: %.0f %% of sessions come from the cache, of %.0f %% before',
	100 * $busy->{share},
	100 * $r->{share});

$history->stop;
done_testing();
