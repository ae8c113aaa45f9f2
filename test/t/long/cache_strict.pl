# 035_cache_strict.pl with each fault for a minute, or SM_HISTORY_SECONDS.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

$ENV{SM_HISTORY_SECONDS} //= 60;
my $test = "$FindBin::RealBin/../035_cache_strict.pl";
do $test;
die "$test: $@" if $@;
