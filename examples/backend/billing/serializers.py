from rest_framework import serializers

from .models import Invoice


class InvoiceSerializer(serializers.ModelSerializer[Invoice]):
    class Meta:
        model = Invoice
        fields = ("number", "customer", "amount", "currency", "issued_on", "created_by")
        read_only_fields = ("number", "issued_on", "created_by")


class PlanSerializer(serializers.Serializer[None]):
    plan = serializers.ChoiceField(choices=("free", "team", "enterprise"))
