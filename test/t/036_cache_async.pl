# Histories of 16 processes that read, change and revoke sessions through the
# cache, redis_mode = async, while things go wrong.
#
# SM_HISTORY_SECONDS is for how long each fault goes on.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheHistory;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{SM_HISTORY_SECONDS} // 2.5;
my $history = CacheHistory->new('cache_async', 'async');
my $max_stale = 0;

my @faults = ('nothing wrong', undef, CacheHistory->faults);
while (my ($name, $fault) = splice @faults, 0, 2)
{
	my $r = $history->run_async($name, $seconds, $fault);
	$max_stale = max($max_stale, $r->{max_stale});
}

# An outage must show, or the bound has not been tested.
cmp_ok($max_stale, '>', 500,
	"the longest time that an answer was stale by was $max_stale ms");

$history->stop;
done_testing();
