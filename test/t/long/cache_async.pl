# 036_cache_async.pl with each fault for a minute, or SM_HISTORY_SECONDS.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";

$ENV{SM_HISTORY_SECONDS} //= 60;
my $test = "$FindBin::RealBin/../036_cache_async.pl";
do $test;
die "$test: $@" if $@;
